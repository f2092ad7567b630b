import csv

from ofa_nas.training.logs import Log


def epochs(folder):
    with (folder / "epochs.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def tell(log, *numbers):
    for number in numbers:
        log.epoch(number, "largest network", number, 1 / 3, 0.1, 50.0)


def test_a_resumed_run_reports_each_epoch_once(tmp_path):
    tell(Log(tmp_path), 0, 1, 2, 3)
    with (tmp_path / "epochs.csv").open("a") as file:
        file.write("4,largest net")  # it was killed
    tell(Log(tmp_path, 2), 2, 3)
    assert epochs(tmp_path) == [0, 1, 2, 3]


def test_a_new_run_starts_new_files(tmp_path):
    tell(Log(tmp_path), 0, 1)
    (tmp_path / "evaluations.csv").write_text("")
    tell(Log(tmp_path), 0)
    assert epochs(tmp_path) == [0]
    assert not (tmp_path / "evaluations.csv").exists()
