"""Downloads of Moodle and Canvas: who handed in is read from their files' names, and their own tables are filled in."""

import csv
import io
import json

import pytest

from diffusion_lessons.cli import main
from diffusion_lessons.grading import Row, submissions, worksheet
from diffusion_lessons.grading.submissions import Points, Submission

RIGHT = """def f(x0, t, eps, schedule):
    a = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps
check("2.1", f)
"""
STUB = 'def g(beta):\n    ...\ncheck("2.2", g)\n'
WORTH = {"2.1": 1.0, "2.2": 3.0}
MOODLE = (
    'Identifier,"Full name","Email address",Status,Grade,"Maximum Grade","Grade can be changed",'
    '"Last modified (submission)","Last modified (grade)","Feedback comments"\r\n'
    'Participant 1234567,"Zoë Müller",zoe@example.org,"Submitted for grading - Not marked",,100.00,Yes,'
    '"Friday, 27 November 2026, 9:12 AM",-,\r\n'
    'Participant 1234568,"=HYPERLINK(""x"")",eve@example.org,"Submitted for grading - Not marked",,100.00,Yes,-,-,\r\n'
    'Participant 1234569,"O\'Neil, Bob",bob@example.org,"No submission - Not marked",,100.00,Yes,-,-,'
    '"- see me\r\n  =after class"\r\n')
CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Notes,Lesson 02 (777),Lesson 03 (778),Assignments Current Score\n"
    ",,,,,,Manual Posting,,\n"
    "    Points Possible,,,,,,20.00,5.00,(read only)\n"
    '"Müller, Zoë",12345,S1,zoe,Monday group,- often late,,-,91.50\n'
    '"Lee, Ann",12346,S2,ann,Monday group,,4.00,-1.50,80.00\n'
    '"Doe, Jo",12347,S3,@jo,Monday group,,EX,,\n'
    '"Student, Test",12349,,aa16,Monday group,,,,\n')


def row(notebook, exercise="", state="right", who="who"):
    return Row(who, notebook, exercise, state, "")


def table(text):
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def sheet_of(tmp_path, text, column=None, encoding="utf-8"):
    path = tmp_path / "sheet.csv"
    path.write_bytes(text.encode(encoding))
    return worksheet.read(path, column)


def filled(tmp_path, sheet, found, total=4.0):
    """(table that comes out, what is left)"""
    left = sheet.fill(found, total)
    sheet.write(tmp_path / "out.csv")
    return (tmp_path / "out.csv").read_bytes().decode(), left


def scored(name, id, score):
    return Points(Submission(name, id), {"2.1": score})


# ---------------------------------------------------------------- names of files


@pytest.mark.parametrize("notebook, who", [
    ("Zoë Müller_1234567_assignsubmission_file_/02_adding_noise.ipynb", ("Zoë Müller", "1234567", False)),
    ("Zoë Müller_1234567_assignsubmission_file/sub/02.ipynb", ("Zoë Müller", "1234567", False)),
    ("Zoë Müller_1234567_assignsubmission_file_02_adding_noise.ipynb", ("Zoë Müller", "1234567", False)),
    ("monday/Bob O'Neil_77_assignsubmission_file_/my notebook.ipynb", ("Bob O'Neil", "77", False)),
    ("müllerzoë_12345_678910_02_adding_noise-1.ipynb", ("müllerzoë", "12345", False)),
    ("leeann_LATE_12346_678911_02_adding_noise.ipynb", ("leeann", "12346", True)),
    ("doe_jo_12347_5_my_12_34_notes.ipynb", ("doe_jo", "12347", False)),
    ("anon_Ab1Cd_678910_02_adding_noise.ipynb", ("", "anon_Ab1Cd", False)),
    ("LATE_anon_Ab1Cd_678910_02_adding_noise.ipynb", ("", "anon_Ab1Cd", True)),
    ("ann/02_adding_noise.ipynb", ("who", "", False)),
    ("02_adding_noise.ipynb", ("who", "", False)),
    ("04b_the_loop_at_work_2.ipynb", ("who", "", False)),
    # what a learner chooses, a folder or the name of the file, does not make somebody else of them
    ("Eve_666_assignsubmission_file_/Zoë Müller_1234567_assignsubmission_file_/02.ipynb", ("Eve", "666", False)),
    ("Eve_666_assignsubmission_file_Zoë Müller_1234567_assignsubmission_file_02.ipynb", ("Eve", "666", False)),
    ("Eve_666_assignsubmission_file_/zoe_12345_678_02.ipynb", ("Eve", "666", False)),
    ("eve_666_1_müllerzoë_12345_678910_02.ipynb", ("eve", "666", False)),
])
def test_who_handed_in_is_read_from_the_platforms_names(notebook, who):
    assert submissions.submission_of("who", notebook) == who


# ---------------------------------------------------------------- points


def test_exercises_and_their_points_are_said_in_a_few_characters():
    assert submissions.points_of("2") == submissions.points_of("02") == {f"2.{k}": 1 for k in range(1, 7)}
    assert list(submissions.points_of("04b,04")) == ["4.1", "4.2", "4.3", "4.4", "4.5", "4.6"]
    assert submissions.points_of("2.3, 2.1=2.5") == {"2.1": 2.5, "2.3": 1}
    assert submissions.points_of("02=2,2.6=3")["2.5"] == 2
    assert submissions.points_of("02=2,2.6=3")["2.6"] == 3
    for wrong in ("", "02,", "9", "2.7", "02=", "02=0", "02=-1", "02=nan", "02=inf", "2.1=a", "2.1=2=3"):
        with pytest.raises(ValueError, match="--points"):
            submissions.points_of(wrong)


def test_an_exercise_counts_in_any_notebook_of_a_learner_and_nothing_unchecked_becomes_a_zero():
    zoe, ann, bob = "zoe_1_11_a.ipynb", "ann_2_13_a.ipynb", "bob_3_14_a.ipynb"
    found = submissions.points([
        row(zoe, "2.1"), row(zoe, "2.2", "not yet"), row("zoe_LATE_1_12_a-1.ipynb", "2.2"), row(zoe, "2.3"),
        row(ann, "2.1", "not tried"), row(ann, "2.2", "not checked"),
        row(bob, "3.1", "right"),
        row("eve_4_15_a.ipynb", "2.1", "missing"), row("eve_4_15_a.ipynb", "2.2", "not yet"),
        row("joe_5_16_a.ipynb", "2.1"), row("joe_5_16_a.ipynb", "2.2"), row("joe_5_17_b.ipynb", "", "not read"),
        row("pat_6_18_a.ipynb", "2.1"), row("pat_6_18_a.ipynb", "2.2", "not yet"),
        row("pat_6_19_b.ipynb", "", "not read")], WORTH)
    assert [(one.submission.name, one.score) for one in found] == [
        ("zoe", 4), ("ann", None), ("bob", None), ("eve", 0), ("joe", 4), ("pat", None)]
    assert found[0].submission.late
    assert found[1].by_exercise == {"2.1": 0, "2.2": None}
    assert found[2].by_exercise == {"2.1": None, "2.2": None}


def test_the_table_of_points_is_safe_in_a_spreadsheet(tmp_path):
    found = [Points(Submission("=cmd|' /C calc'!A0", "7", True), {"2.1": 1.0, "2.2": None}),
             Points(Submission("Zoë;@SUM(1)"), {"2.1": 0.0, "2.2": 2.5})]
    submissions.write_points(found, WORTH, tmp_path / "points.csv")
    text = (tmp_path / "points.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    assert table(text.decode()) == [
        ["who", "id", "late", "q2.1", "q2.2", "score", "max_score"],
        ["points possible", "", "", "1", "3", "4", "4"],
        ["'=cmd|' /C calc'!A0", "7", "yes", "1", "", "", "4"],
        ["Zoë;'@SUM(1)", "", "", "0", "2.5", "2.5", "4"]]


# ---------------------------------------------------------------- the platforms' tables


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_moodles_worksheet_comes_back_with_the_grades_and_else_as_it_was(tmp_path, mark):
    sheet = sheet_of(tmp_path, mark + MOODLE)
    text, left = filled(tmp_path, sheet, [scored("Zoë Müller", "1234567", 3.0), scored("Eve", "9", 4.0)])
    assert left == ["Eve (9): no row has this number"]
    assert text.startswith("\ufeff") == bool(mark)
    assert text.count("\r\n") == MOODLE.count("\r\n") == text.count("\n")
    expected = table(MOODLE)
    expected[1][4] = "75"
    expected[2][1] = "'" + expected[2][1]    # the only cell that a learner can make a formula of
    assert table(text) == expected
    assert text.endswith('"- see me\r\n  =after class"\r\n')    # what the lecturer wrote is imported again


def test_canvas_gradebook_comes_back_with_the_grades_and_else_as_it_was(tmp_path):
    sheet = sheet_of(tmp_path, CANVAS, "Lesson 02")
    text, left = filled(tmp_path, sheet, [scored("müllerzoë", "12345", 4.0), scored("leeann", "12346", 1.0),
                                          scored("doejo", "12347", 4.0), scored("", "anon_Ab1Cd", 4.0)])
    assert left == ["doejo (12347): is excused (EX), and stays so", "(anon_Ab1Cd): no row has this number"]
    expected = table(CANVAS)
    expected[3][6], expected[4][6] = "20", "5"
    expected[5][3] = "'@jo"
    assert table(text) == expected
    assert "\r" not in text


def test_decimal_commas_semicolons_other_languages_and_split_names_are_kept(tmp_path):
    german = ("ID,Vollständiger Name,Status,Bewertung,Bestwertung,Zuletzt geändert (Bewertung)\r\n"
              "Teilnehmer/in 5,Jörg Groß,Zur Bewertung abgegeben,,\"10,00\",-\r\n")
    text, left = filled(tmp_path, sheet_of(tmp_path, german, "Bewertung"), [scored("Jörg Groß", "5", 1.0)], total=3.0)
    assert left == []
    assert table(text)[1][3:5] == ["3,33", "10,00"]
    canvas = ("\ufeffLastName;FirstName;ID;SIS Login ID;Section;Lesson 02 (777)\n    Points Possible;;;;;10,00\n"
              "Groß;Jörg;5;jg;A\n")
    text, left = filled(tmp_path, sheet_of(tmp_path, canvas), [scored("großjörg", "5", 1.0)], total=3.0)
    assert left == []
    assert text == canvas.replace("jg;A", "jg;A;3,33")


def test_a_number_alone_does_not_give_a_grade(tmp_path):
    sheet = sheet_of(tmp_path, MOODLE)
    found = [scored("Team A", "1234567", 4.0), scored("Group 1-Bob O'Neil", "1234569", 4.0),
             scored("Monday-O'Neil Bob", "1234569", 2.0), scored("=HYPERLINK(x", "1234568", None)]
    text, left = filled(tmp_path, sheet, found)
    assert [one.split(": ")[1][:9] for one in left] == ["the row w", "the row w", "something"]
    assert [line[4] for line in table(text)] == ["Grade", "", "", "50"]
    blind = MOODLE.replace('"Full name","Email address",', "").replace('"Zoë Müller",zoe@example.org,', "")
    blind = blind[:blind.index("Participant 1234568")]
    text, left = filled(tmp_path, sheet_of(tmp_path, blind), [scored("Participant", "1234567", 4.0)])
    assert left == []
    assert table(text)[1][2] == "100"
    # a name in Canvas that is made to look like another user's number
    eve = submissions.submission_of("who", "lee_12345_7__12346_678910_02.ipynb")
    assert eve.id == "12345"
    assert filled(tmp_path, sheet_of(tmp_path, CANVAS, "Lesson 02"), [Points(eve, {"2.1": 4.0})])[1] == [
        "lee (12345): the row with this number has another name"]


@pytest.mark.parametrize("text, column, encoding, says", [
    ("", None, "utf-8", "neither Moodle's table"),
    ("who,notebook\nann,02.ipynb\n", None, "utf-8", "neither Moodle's table"),
    (MOODLE, None, "latin-1", "is not in UTF-8"),
    (MOODLE + 'Participant 5,"x', None, "utf-8", "is damaged"),
    (MOODLE, "Note", "utf-8", "--column and one of 'Full name', 'Email address', 'Status', 'Grade'"),
    (MOODLE.replace(",100.00,", ',"Poor\r\nGood",'), None, "utf-8", "graded in points"),
    (CANVAS, None, "utf-8", r"--column and one of 'Lesson 02 \(777\)', 'Lesson 03 \(778\)'"),
    (CANVAS, "Notes", "utf-8", "--column"),
    (CANVAS.replace(",Assignments Current Score", ""), "", "utf-8", "--column"),
    (CANVAS, "Assignments Current Score", "utf-8", "--column"),
    (CANVAS.replace("(778)", "(779)").replace("Lesson 03", "Lesson 02"), "Lesson 02", "utf-8", "--column"),
    (CANVAS.replace("    Points Possible", ""), "Lesson 02", "utf-8", "Points Possible"),
])
def test_a_table_that_cannot_be_filled_in_is_refused_with_what_to_do(tmp_path, text, column, encoding, says):
    with pytest.raises(ValueError, match=says):
        sheet_of(tmp_path, text, column, encoding)


# ---------------------------------------------------------------- the command


def hand_in(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [{"cell_type": "code", "source": cell} for cell in cells]
    path.write_text(json.dumps({"cells": found, "nbformat": 4}))


def test_a_download_of_moodle_is_graded_into_its_worksheet(tmp_path, capsys):
    download = tmp_path / "download"
    hand_in(download / "Zoë Müller_1234567_assignsubmission_file_" / "02_adding_noise.ipynb", RIGHT, STUB)
    hand_in(download / "Bob_99_assignsubmission_file_" / "02_adding_noise.ipynb", STUB)
    (tmp_path / "Grades.csv").write_bytes(MOODLE.encode("utf-8-sig"))
    assert main(["grade", str(download), "--points", "2.1,2.2=3", "--worksheet", str(tmp_path / "Grades.csv")]) == 0
    said = capsys.readouterr().out
    assert "Zoë Müller (1234567)    1 of 6\n" in said
    assert "1 of 3 rows filled in (full marks: 100.00), written to" in said
    assert "Not filled in: Bob (99): no row has this number" in said
    assert (tmp_path / "Grades.csv").read_bytes() == MOODLE.encode("utf-8-sig")
    assert [line[4] for line in table((download / "Grades_filled.csv").read_text("utf-8"))] == ["Grade", "25", "", ""]
    points = table((download / "grades_points.csv").read_text("utf-8"))
    assert points[2:] == [["Bob", "99", "", "0", "0", "0", "4"], ["Zoë Müller", "1234567", "", "1", "0", "1", "4"]]
    rows = table((download / "grades.csv").read_text("utf-8"))
    assert {line[0] for line in rows[1:]} == {"Zoë Müller (1234567)", "Bob (99)"}


def test_a_download_of_canvas_is_graded_into_its_gradebook(tmp_path, capsys):
    hand_in(tmp_path / "müllerzoë_LATE_12345_678910_02_adding_noise-1.ipynb", RIGHT)
    (tmp_path / "book.csv").write_text(CANVAS, "utf-8")
    assert main(["grade", str(tmp_path), "--points", "2.1", "--worksheet", str(tmp_path / "book.csv"),
                 "--column", "Lesson 02 (777)", "--out", str(tmp_path / "new" / "t.csv")]) == 0
    assert "1 of 4 rows filled in (full marks: 20.00), written to" in capsys.readouterr().out
    assert table((tmp_path / "new" / "book_filled.csv").read_text("utf-8"))[3][6] == "20"
    assert table((tmp_path / "new" / "t_points.csv").read_text("utf-8"))[2][:3] == ["müllerzoë", "12345", "yes"]


def test_what_does_not_fit_is_said_before_the_first_notebook(tmp_path, capsys):
    hand_in(tmp_path / "ann" / "02_adding_noise.ipynb", STUB)
    (tmp_path / "grades.csv").write_text(MOODLE, "utf-8")
    (tmp_path / "S_filled.csv").mkdir()
    (tmp_path / "S.csv").write_text(MOODLE, "utf-8")
    for extra, says in [
            (["--worksheet", "{}/S.csv"], "--worksheet needs --points"),
            (["--points", "02", "--column", "Grade"], "--column needs --worksheet"),
            (["--points", "12"], "neither a notebook"),
            (["--points", "02", "--worksheet", "{}/none.csv"], "No such file"),
            (["--points", "02", "--worksheet", "{}/grades.csv"], "would replace another"),
            (["--points", "02", "--worksheet", "{}/S.csv"], "is not a regular file"),
            (["--points", "02", "--worksheet", "{}/S.csv", "--column", "Mark"], "with --column and one of")]:
        assert main(["grade", str(tmp_path), *(part.format(tmp_path) for part in extra)]) == 1
        assert says in capsys.readouterr().err
    assert (tmp_path / "grades.csv").read_text("utf-8") == MOODLE.replace("\r\n", "\n")
    assert not (tmp_path / "grades_points.csv").exists()
