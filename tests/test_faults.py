"""`make faults`: what it counts, that it ends, and that the page gets its table."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import faults  # noqa: E402

RESULTS = """<testsuites><testsuite>
<testcase classname="tests.test_training" name="killed"/>
<testcase classname="tests.test_checkpoints" name="bits"><properties><property name="cases" value="1400"/>
<property name="other" value="7"/></properties></testcase>
<testcase classname="tests.test_checkpoints" name="bad"><failure message="no"/></testcase>
<testcase classname="tests.test_checkpoints" name="worse"><error message="no"/></testcase>
<testcase classname="tests.test_checkpoints" name="absent"><skipped message="later"/></testcase>
<testcase classname="tests.test_new.TestThat" name="unknown"/>
</testsuite></testsuites>"""


def test_cases_and_failures_are_counted_by_kind(tmp_path):
    (tmp_path / "results.xml").write_text(RESULTS)
    checkpoints, training = faults.KINDS["test_checkpoints"], faults.KINDS["test_training"]
    assert faults.rows(tmp_path / "results.xml") == [
        [checkpoints, 3, 1402, 2, 1], [training, 1, 1, 0, 0], ["test_new", 1, 1, 0, 0], ["all", 5, 1404, 2, 1]]
    assert faults.rows(tmp_path / "none.xml") == []


def test_every_file_with_marked_tests_has_a_kind_and_no_other():
    marked = {path.stem for path in (ROOT / "tests").glob("test_*.py") if "pytest.mark." + "faults" in path.read_text()}
    assert marked == set(faults.KINDS)


def test_the_table_is_written_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(faults.TABLE.read_text(encoding="utf-8"), encoding="utf-8")
    for cases in (1402, 7):
        faults.write_table([["disks", 3, cases, 0, 1]], "today.", page)
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| disks")] == ["| disks | 3 | 7 | 0 | 1 |"]
    assert lines[:5] == faults.TABLE.read_text(encoding="utf-8").splitlines()[:5]
    assert "today." in lines
    assert lines[-1] == faults.END


def test_it_ends_in_time_with_what_has_run_so_far(tmp_path, monkeypatch):
    """pytest is stood for by a program that writes its results on Ctrl-C."""
    (tmp_path / "pytest.py").write_text("import sys, time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n"
                                        "    open(sys.argv[-2].split('=')[1], 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert not faults.run(["x"], tmp_path / "results.xml", seconds=3)
    assert (tmp_path / "results.xml").exists()
