"""The formats as their own tools read them: nnU-Net, VoxTell, MONAI, Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from export_work import PET_SHAPE, export, make_work, snapshot


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest; the card's own tests draw."""
    monkeypatch.setattr("petground.pipeline.exports.card.draw", lambda card: {})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("export") / "work", 6)


def test_nnunet_lays_out_channels_labels_and_patient_level_folds(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 10, patients={n: f"p{n // 2}" for n in range(10)}, no_ct=[9])
    root = tmp_path / "Dataset501_X"
    done = export(work, root, "nnunet")
    described = json.loads((root / "dataset.json").read_text())
    assert described["channel_names"] == {"0": "PET", "1": "CT"}
    assert described["labels"] == {"background": 0, "lesion": 1}
    training = {p.name for p in (root / "labelsTr").iterdir()}
    test = {p.name for p in (root / "labelsTs").iterdir()}
    assert described["numTraining"] == len(training)
    assert len(training | test) == 9, "the exam without CT stays out"
    for cases, end in ((training, "Tr"), (test, "Ts")):
        stems = [name.removesuffix(".nii.gz") for name in cases]
        wanted = {f"{s}_000{c}.nii.gz" for s in stems for c in (0, 1)}
        assert {p.name for p in (root / f"images{end}").iterdir()} == wanted
    folds = json.loads((root / "splits_final.json").read_text())
    patient_of = {c.case: c.exam.patient_id for c in done.release.cases}
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(n.removesuffix(".nii.gz") for n in training)
    for fold in folds:
        assert not {patient_of[c] for c in fold["train"]} & {patient_of[c] for c in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == sorted(n.removesuffix(".nii.gz") for n in training)
    assert set(folds[0]["val"]) == {c.case for c in done.release.of("val")}
    assert not {patient_of[n.removesuffix(".nii.gz")] for n in test} & {patient_of[c] for c in folds[0]["train"]}


def test_nnunets_own_check_takes_it_with_both_readers(work: Path, tmp_path: Path) -> None:
    """`verify_dataset_integrity` warns only when grids differ, so the warnings are read as well."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases, verify_labels
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    for to, reader in (("nnunet", SimpleITKIO), ("voxtell", NibabelIOWithReorient)):
        root = tmp_path / to
        export(work, root, to)
        described = json.loads((root / "dataset.json").read_text())
        found = get_filenames_of_train_images_and_targets(str(root), described)
        assert len(found) == described["numTraining"]
        for one in found.values():
            assert verify_labels(one["label"], reader, [0, 1])
            assert check_cases(one["images"], one["label"], 2, reader)
            images_read, told = reader().read_images(one["images"])
            label_read, told_label = reader().read_seg(one["label"])
            assert images_read.shape[1:] == label_read.shape[1:]
            key = "nibabel_stuff" if reader is NibabelIOWithReorient else "sitk_stuff"
            for name, value in told[key].items():
                assert np.allclose(value, told_label[key][name]), name
            assert images_read[1].min() == -1024


@pytest.mark.slow
def test_nnunet_plans_and_preprocesses_it(work: Path, tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    export(work, tmp_path / "raw" / "Dataset501_X", "nnunet")
    places = {f"nnUNet_{n}": str(tmp_path / n) for n in ("raw", "preprocessed", "results")}
    program = Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess")
    words = ["-d", "501", "--verify_dataset_integrity", "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
    done = subprocess.run(
        [program, *words], env={**os.environ, **places}, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Warning" not in done.stdout
    made = tmp_path / "preprocessed" / "Dataset501_X"
    told = json.loads((tmp_path / "raw" / "Dataset501_X" / "splits_final.json").read_text())
    assert json.loads((made / "splits_final.json").read_text()) == told, "nnU-Net took the splits over"
    assert (made / "nnUNetPlans_3d_fullres").is_dir()


def test_voxtell_is_ras_names_its_reader_and_gives_every_prompt_its_masks(work: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    export(work, root, "voxtell")
    assert json.loads((root / "dataset.json").read_text())["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    prompts = json.loads((root / "prompts.json").read_text())
    told = [case for part in prompts.values() for case in part]
    assert len(told) == 6
    for case in told:
        for name in [*case["images"], *(m for p in case["prompts"] for m in p["masks"])]:
            assert nib.aff2axcodes(nib.load(root / name).affine) == ("R", "A", "S")
        for prompt in case["prompts"]:
            assert prompt["prompt"] == prompt["prompt"].lower()
    jobs = [job for part in ("train", "val", "test") for job in json.loads((root / f"jobs_{part}.json").read_text())]
    assert {tuple(job) for job in jobs} == {("image", "prompts")}
    assert all((root / job["image"]).is_file() for job in jobs)
    case = next(c for c in told if c["case"] == "e00")
    mask = nib.load(root / case["prompts"][0]["masks"][0])
    original = nib.load(work / "labels" / "e00" / "f001.nii.gz")

    def centre(image: nib.Nifti1Image) -> np.ndarray:
        return nib.affines.apply_affine(image.affine, np.argwhere(image.get_fdata() > 0)).mean(axis=0)

    assert np.allclose(centre(mask), centre(original), atol=1e-3), "turned, not moved"
    assert not np.array_equal(mask.get_fdata(), original.get_fdata())


def test_monai_loads_and_collates_the_datalist(work: Path, tmp_path: Path) -> None:
    from monai.data import DataLoader, Dataset, load_decathlon_datalist
    from monai.transforms import LoadImaged

    export(work, tmp_path, "monai")
    counts = {}
    for key in ("training", "validation", "test"):
        items = load_decathlon_datalist(str(tmp_path / "datalist.json"), True, key)
        counts[key] = len(items)
    assert counts == {"training": 8, "validation": 2, "test": 2}
    items = load_decathlon_datalist(str(tmp_path / "datalist.json"), True, "training")
    loaded = LoadImaged(keys=["image", "label"], ensure_channel_first=True)(items[0])
    assert loaded["image"].shape == (2, *PET_SHAPE)
    assert loaded["label"].shape == (1, *PET_SHAPE)
    assert float(loaded["image"][0].max()) > 1
    assert float(loaded["image"][1].min()) == -1024
    assert "SUV" not in loaded["sentence"]
    assert "slice" not in loaded["sentence"]
    batch = next(iter(DataLoader(Dataset(items, LoadImaged(keys=["image", "label"])), batch_size=2)))
    assert batch["image"].shape == (2, 2, *PET_SHAPE)
    assert len(batch["sentence"]) == 2
    union = load_decathlon_datalist(str(tmp_path / "datalist_lesions.json"), True, "training")
    whole = LoadImaged(keys=["label"])(union[0])["label"]
    parts = [LoadImaged(keys=["label"])(i)["label"] for i in items if i["case"] == union[0]["case"]]
    assert np.array_equal(np.asarray(whole), np.maximum(*(np.asarray(p) for p in parts)))


def test_hugging_face_loads_the_folder_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    work = make_work(tmp_path / "work", 5, no_ct=[2])
    export(work, tmp_path / "out", "huggingface", licence="CC BY-NC 4.0")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {part: len(rows) for part, rows in found.items()} == {"train": 6, "validation": 2, "test": 2}
    rows = [row for part in found.values() for row in part]
    for row in rows:
        assert row["pet"].shape == row["mask"].shape == PET_SHAPE
        assert (row["ct"] is None) == (row["case"] == "e02")
    first = next(row for row in rows if (row["case"], row["finding"]) == ("e00", "f001"))
    assert np.argwhere(np.asarray(first["mask"].dataobj) > 0).min(axis=0).tolist() == [6, 8, 5]
    assert np.allclose(first["pet"].affine, nib.load(work / "exams" / "e00" / "pet.nii.gz").affine)
    assert first["suv_reported"] == 3.0
    assert first["patient"] is None
    head = (tmp_path / "out" / "README.md").read_text()
    assert head.startswith("---\n")
    assert "license_name: CC BY-NC 4.0" in head


def test_keyed_names_leave_no_id_behind(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 4, patients={n: f"MRN-7{n}" for n in range(4)})
    done = export(
        work, tmp_path / "out", "huggingface", name_of=lambda kind, value: f"{kind}-{sum(value.encode()):06d}"
    )
    assert len({c.case for c in done.release.cases}) == len({c.patient for c in done.release.cases}) == 4
    for path, content in snapshot(tmp_path / "out").items():
        assert "e00" not in path.split("/")
        if not path.endswith((".nii.gz", ".png")):
            assert b"MRN-7" not in content, path
            assert b"1.2.840.99" not in content
    image = nib.load(next((tmp_path / "out").rglob("pet.nii.gz")))
    assert not image.header.extensions, "the frame of reference rides in no header"
