"""The matrix of settings: all of what it promises is in it, and its table says what happened."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import everywhere  # noqa: E402


@pytest.mark.parametrize(("capability", "kernels"), [("AVX512", {"default", "avx2", "native"}),
                                                     ("AVX2", {"default", "avx2"}), ("DEFAULT", {"default"})])
def test_every_kernel_meets_every_number_of_threads_once_and_every_python_is_there(capability, kernels):
    settings = everywhere.settings(everywhere.native(capability))
    names = [setting.name for setting in settings]
    assert len(set(names)) == len(names)
    assert {name for name in names if "-py" not in name} == {f"{k}-{threads}" for k in kernels for threads in (1, 2, 4)}
    assert {setting.python for setting in settings} == {"", "3.11", "3.12", "3.13"}
    assert {setting.versions for setting in settings} == {None, "lowest", "colab", "newest"}


def test_native_is_named_after_the_kernels_it_takes(monkeypatch, capsys):
    monkeypatch.setattr(everywhere, "native", lambda: "avx2")
    assert everywhere.main(["--list", "--only", "native-2", "lowest"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == ["avx2-2", "lowest-py3.11"]
    assert "avx2" in said[0]


def test_a_row_names_the_commit(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], cwd=tmp_path, check=True,
                       capture_output=True)

    assert everywhere.commit(tmp_path) == ""
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag")    # is not what the row should say
    clean = everywhere.commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{7,}", clean)
    (tmp_path / "file").write_text("2")
    assert everywhere.commit(tmp_path) == f"{clean}-dirty"
    assert everywhere.HEAD[-1] == "commit"


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
        "| avx2-1 | A |  |  |  | 0 |  |  |  |", "| avx2-2 | A |  |  |  |  |  |  |  |",
        "| avx2-1 | B |  |  |  | 7 |  |  |  |"]
    assert lines[0] == "# Head"
    assert lines[-1] == "Tail"
    assert sum(line.startswith("| setting") for line in lines) == 1


def test_the_page_of_the_course_can_be_written_to(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(everywhere.TABLE.read_text(encoding="utf-8"), encoding="utf-8")
    everywhere.write_row({"setting": "new", "processor": "P"}, page)
    assert "| new | P |" in page.read_text(encoding="utf-8")
