"""The matrix of settings: all of what it promises is in it, and its table says what happened."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import everywhere  # noqa: E402


def test_every_kernel_meets_every_number_of_threads_and_every_python_is_there():
    names = [setting.name for setting in everywhere.settings()]
    assert len(set(names)) == len(names)
    assert {f"{kernel}-{threads}" for kernel in ("default", "avx2", "native") for threads in (1, 2, 4)} < set(names)
    assert {setting.python for setting in everywhere.settings()} == {"", "3.11", "3.12", "3.13"}
    assert {setting.versions for setting in everywhere.settings()} == {None, "lowest", "colab", "newest"}


def test_the_lowest_versions_are_the_floors():
    assert "torch==2.6" in everywhere.constraints("lowest")
    assert not [line for line in everywhere.constraints("lowest") if ">" in line]
    assert "torch==2.11.0" in everywhere.constraints("colab")


RESULTS = """<testsuites><testsuite>
<testcase classname="a" name="good"/><testcase classname="a" name="also"><system-out>x</system-out></testcase>
<testcase classname="a" name="bad"><failure message="no"/></testcase>
<testcase classname="a" name="worse"><error message="no"/></testcase>
<testcase classname="a" name="absent"><skipped message="later"/></testcase>
</testsuite></testsuites>"""


def test_failures_and_errors_are_counted_and_named(tmp_path):
    (tmp_path / "results.xml").write_text(RESULTS)
    assert everywhere.counts(tmp_path / "results.xml") == (2, ["a::bad", "a::worse"])
    assert everywhere.counts(tmp_path / "none.xml") == (0, ["pytest itself"])


def test_a_row_replaces_the_one_before_and_leaves_the_others(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Head\n\n{everywhere.BEGIN}\n\n{everywhere.END}\n\nTail\n")
    rows = [{"setting": "avx2-1", "processor": "A", "failed": "3"}, {"setting": "avx2-2", "processor": "A"},
            {"setting": "avx2-1", "processor": "B", "failed": "7"}, {"setting": "avx2-1", "processor": "A",
                                                                     "failed": "0"}]
    for row in rows:
        everywhere.write_row(row, page)
    lines = page.read_text().splitlines()
    assert [line for line in lines if line.startswith("| avx2")] == [
        "| avx2-1 | A |  |  |  | 0 |  |  |", "| avx2-2 | A |  |  |  |  |  |  |", "| avx2-1 | B |  |  |  | 7 |  |  |"]
    assert lines[0] == "# Head"
    assert lines[-1] == "Tail"
    assert sum(line.startswith("| setting") for line in lines) == 1


def test_the_page_of_the_course_can_be_written_to(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(everywhere.TABLE.read_text(encoding="utf-8"), encoding="utf-8")
    everywhere.write_row({"setting": "new", "processor": "P"}, page)
    assert "| new | P |" in page.read_text(encoding="utf-8")
