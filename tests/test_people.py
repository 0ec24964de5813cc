"""Sex and age: as readers find them, in the manifest, the predictions and the card."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
from test_readers import chexpert, nih, read, write
from test_readers_kinds import table
from test_readers_more import mimic, pad

from bigxfer.data import identity, labels
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import DataError, padchest, spellings
from bigxfer.report import groups
from bigxfer.runs import card_groups, predictions
from bigxfer.tables import run_row


def manifest(**columns):
    n = 4
    names = np.array([f"{i}" for i in range(n)], object)
    return Manifest(
        name="set",
        root="",
        classes=("a", "b"),
        labels=np.array([0, 1, 0, 1]),
        id=names,
        path=names,
        patient=names,
        source=np.full(n, "", object),
        view=np.full(n, "", object),
        split=np.full(n, "test", object),
        **{name: np.array(column, object) for name, column in columns.items()},
    )


SEX, AGE = ["F", "M", "", "F"], ["57", "", "0.5", "90"]


@pytest.mark.parametrize(
    "text, sex",
    [
        *(("F", "F"), ("female", "F"), ("M", "M"), ("Male", "M"), ("Unknown", "")),
        *(("", ""), ("O", ""), ("nan", ""), ("0", None), ("1", None), ("x", None)),
    ],
)
def test_spellings_of_sex(text, sex):
    assert spellings.sex(text) == sex


@pytest.mark.parametrize(
    "text, age",
    [
        *(("57", "57"), ("57.0", "57"), ("057Y", "57"), ("006M", "0.5"), ("0", "0")),
        *(("", ""), ("nan", ""), ("unknown", ""), ("old", None), ("inf", None)),
    ],
)
def test_spellings_of_age(text, age):
    assert spellings.age(text) == age


def test_the_readers_of_chexpert_and_nih_know_sex_and_age(tmp_path):
    chexpert(tmp_path / "c")
    m = read("chexpert", tmp_path / "c")
    assert set(m.sex) == {"F"} and set(m.age) == {"50"}
    nih(tmp_path / "n")
    path = tmp_path / "n" / "Data_Entry_2017_v2020.csv"
    path.write_text(path.read_text().replace(",81,M,", ",412,F,"))
    m = read("nih", tmp_path / "n")
    assert list(m.sex) == ["M", "M", "F"]
    assert list(m.age) == ["58", "58", ""]  # nobody is 412 years old


def test_padchest_tells_the_year_of_birth(tmp_path):
    pad(tmp_path)
    path = tmp_path / padchest.TABLE
    head, *rows = path.read_text().splitlines()
    assert read("padchest", tmp_path).sex is None  # the file has no such columns
    more = [",PatientBirth,PatientSex_DICOM,StudyDate_DICOM"]
    more += [",1950.0,F,20141231"] + [",,M,20141231"] * (len(rows) - 1)
    path.write_text("".join(f"{a}{b}\n" for a, b in zip([head, *rows], more)))
    m = read("padchest", tmp_path)
    assert (m.sex[0], m.age[0]) == ("F", "64") and (m.sex[1], m.age[1]) == ("M", "")


def test_mimic_takes_them_of_mimic_iv(tmp_path):
    mimic(tmp_path)
    before = read("mimic", tmp_path)
    assert before.sex is before.age is None
    subject = before.patient[0].removeprefix("mimic-")
    text = f"subject_id,gender,anchor_age,anchor_year\n{subject},F,52,2180\n"
    (tmp_path / "patients.csv.gz").write_bytes(gzip.compress(text.encode()))
    (path,) = tmp_path.glob("*metadata.csv*")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        rows = [line.rstrip("\n") for line in file]
    if "StudyDate" not in rows[0]:
        rows = [rows[0] + ",StudyDate", *(row + ",21830104" for row in rows[1:])]
    with opened(path, "wt") as file:
        file.write("\n".join(rows) + "\n")
    m = read("mimic", tmp_path)
    assert m.sex[0] == "F" and m.age[0] == "55"
    assert m.hash() == before.hash()
    write(tmp_path / "patients.csv", "subject_id,gender\n1,F\n")
    (tmp_path / "patients.csv.gz").unlink()
    with pytest.raises(DataError, match="no column 'anchor_age'"):
        read("mimic", tmp_path)


def test_columns_of_a_csv_are_people_or_classes(tmp_path):
    rows = ["a.png,p,1,Female,61", "b.png,q,0,m,", "c.png,r,1,unknown,7.0"]
    m = read("csv", table(tmp_path, "file,patient,Mass,Sex,AGE", *rows))
    assert m.classes == ("Mass",) and m.remarks() == []
    assert list(m.sex) == ["F", "M", ""] and list(m.age) == ["61", "", "7"]
    # A column of 0 and 1 tells no sex: it stays the class that it was before.
    marks = ["a.png,p,1,0,61", "b.png,q,0,1,old", "c.png,r,1,1,7"]
    m = read("csv", table(tmp_path, "file,patient,Mass,sex,age", *marks))
    assert m.classes == ("Mass", "sex") and m.sex is m.age is None
    assert "age: '61' on line 2" in m.remarks()[0]
    with pytest.raises(
        DataError, match="sex is 'Female'; 1, 0"
    ):  # asked for as a class
        root = table(tmp_path, "file,patient,Mass,sex,age", *rows)
        read("csv", root, labels=("sex",))


def test_a_manifest_keeps_them_and_its_hash(tmp_path):
    plain, m = manifest(), manifest(sex=SEX, age=AGE)
    assert m.hash() == plain.hash()  # the data of old runs keep their name
    assert plain.people_hash() == "" != m.people_hash()
    m.save(tmp_path / "m.parquet")
    back = Manifest.load(tmp_path / "m.parquet")
    assert list(back.sex) == SEX and list(back.age) == AGE
    part = m.select(np.array([3, 0]))
    assert list(part.sex) == ["F", "F"] and list(part.age) == ["90", "57"]
    assert manifest(sex=[""] * 4).sex is None
    plain.save(tmp_path / "plain.parquet")
    assert Manifest.load(tmp_path / "plain.parquet").sex is None


def test_a_saved_sex_that_changed_is_damage(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "m.parquet"
    manifest(sex=SEX, age=AGE).save(path)
    found = pq.read_table(path)
    turned = found.set_column(
        found.column_names.index("sex"), "sex", [["M", "M", "", "F"]]
    )
    pq.write_table(turned.replace_schema_metadata(found.schema.metadata), path)
    with pytest.raises(ValueError, match="damaged"):
        Manifest.load(path)


@pytest.mark.parametrize(
    "column, message",
    [
        ({"sex": ["F", "male", "", ""]}, "row 1 has the sex 'male'"),
        ({"age": ["57", "", "old", ""]}, "row 2 has the age 'old'"),
        ({"age": ["57", "", "", "130"]}, "row 3 has the age '130'"),
        ({"age": ["57"]}, "column age has another length"),
    ],
)
def test_a_manifest_refuses_what_is_no_sex_and_no_age(column, message):
    with pytest.raises(ValueError, match=message):
        manifest(**column).validate()


def test_a_union_fills_in_what_one_set_does_not_tell():
    other = replace(manifest(), name="other")
    both = labels.union([manifest(sex=SEX), other])
    assert list(both.sex) == [*SEX, "", "", "", ""] and both.age is None


def test_runs_from_before_have_the_same_data():
    class Images:
        sums = np.zeros(4, "V16")

    old = identity.of_sets([manifest()], Images, "raw")
    new = identity.of_sets([manifest(sex=SEX)], Images, "raw")
    assert identity.differences(old, new) == [] == identity.differences(new, old)
    assert identity.name(old) == identity.name(new)
    turned = identity.of_sets([manifest(sex=[*SEX[:3], "M"])], Images, "raw")
    assert identity.differences(new, turned) == ["sexes or ages"]


def test_predictions_hold_them_where_they_are_known(tmp_path):
    logits = np.zeros((4, 2))
    for columns in ({}, {"sex": SEX}, {"sex": SEX, "age": AGE}):
        predictions.save(tmp_path / "p.npz", manifest(**columns), logits)
        back = predictions.read(tmp_path / "p.npz")
        sexes, ages = columns.get("sex"), columns.get("age")
        assert (None if back.sexes is None else list(back.sexes)) == sexes
        assert (None if back.ages is None else list(back.ages)) == ages
        part = back.select(np.array([1]))
        assert part.ids.tolist() == ["1"] and (part.ages is None) == (ages is None)


def test_the_card_says_the_gaps_and_what_is_missing():
    entry = {"value": 0.8, "low": 0.7, "high": 0.9}
    lacks = {"value": None, "low": None, "high": None, "reason": "3 patients with a"}
    group = {"images": 1200, "patients": 900}
    found = {
        "classes": ["a", "b"],
        "groups": {
            "F": {**group, "metrics": {"auroc_macro": entry}},
            "M": {**group, "metrics": {"auroc_macro": entry}},
            "O": {**group, "metrics": {"auroc_macro": lacks}},
        },
        "gaps": {
            "auroc_macro": {
                "value": 0.1,
                "low": -0.02,
                "high": 0.22,
                "of": ["M", "F"],
                "pairs": 1,
            }
        },
    }
    text = "\n".join(card_groups.lines({"groups": {"sex": found}}))
    assert "| sex | F     | 1,200, 900       | 0.800 [0.700, 0.900] |" in text
    assert "the largest gap is 0.100 [-0.020, 0.220], M above F" in text
    assert "- sex O: 3 patients with a" in text
    assert "Neither sex" in "\n".join(card_groups.lines({}))


GAP = {"value": 0.1, "low": 0.02, "high": 0.18, "of": ["M", "F"], "pairs": 1}


def test_the_table_and_the_page_tell_the_gaps_of_runs():
    none = {"value": None, "low": None, "high": None, "reason": "few"}
    result = {
        "groups": {
            "sex": {"gaps": {"auroc_macro": GAP}},
            "age": {"gaps": {"auroc_macro": none}},
        }
    }
    row = run_row.of_groups(result)
    assert row["gap/sex/auroc_macro"] == 0.1 and row["gap/age/auroc_macro"] is None
    assert run_row.of_groups({}) == {}
    rows = [row | {"target": "nih", "digest": "0123456789abcdef"}]
    rows.append(
        {
            "target": "nih",
            "digest": "f" * 16,
            "gap/csv-b/auroc_macro": -0.2,
            "gap/csv-b/auroc_macro_low": -0.3,
            "gap/csv-b/auroc_macro_high": 0.01,
            **{f"gap/sex/auroc_macro{e}": v for e, v in (("", 0.3), ("_low", -0.1))},
            "gap/sex/auroc_macro_high": 0.5,
        }
    )
    html = groups.table(rows)
    for cells in (
        "between sexes</td><td>2</td><td>0.200</td><td>0.300 [-0.100, 0.500], run ffffffff",
        "</td><td>1 of 2</td>",
        "csv-b less the test split</td><td>1</td><td>-0.200</td><td>-0.200 [-0.300, 0.010]",
    ):
        assert cells in html
    assert "between age bands" not in html
    assert groups.table([{"target": "x", "accuracy": 0.5}]) == ""
