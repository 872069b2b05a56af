import re
import subprocess
import sys
import time

from service.record import Record, new_request_id
from tests.conftest import ROOT


def test_each_new_id_is_another_one() -> None:
    ids = [new_request_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_each_process_has_ids_of_its_own() -> None:
    script = "from service.record import new_request_id; print(new_request_id())"
    command = [sys.executable, "-c", script]
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert other[:16] != new_request_id()[:16]


def test_a_record_begins_when_it_is_made_and_claims_nothing() -> None:
    before_s = time.perf_counter()
    record = Record("id", "GET", "/x")
    assert before_s <= record.began_s <= time.perf_counter()
    assert (record.route, record.model, record.version, record.status) == ("unmatched", "", "", 500)
