"""The ledger: nothing finished is computed again, nothing wrong is reused, and no fault stops a run."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import boxes_json, picture, picture_files, scripted

from vlm_nb import ledger
from vlm_nb.asking import Job
from vlm_nb.batch import book, identity
from vlm_nb.errors import GenerationError, LedgerError
from vlm_nb.ledger import places, stamps, store
from vlm_nb.ledger.stamps import Stamp
from vlm_nb.ledger.store import Ledger
from vlm_nb.request import Request


class Counting:
    """A model that says what it is asked and counts how often."""

    def __init__(self, fingerprint: str | None = "echo", **engine_args: Any) -> None:
        self.asked: list[str] = []
        named = {"fingerprint": fingerprint} if fingerprint else {}
        self.model = scripted(self._answer, **named, **engine_args)

    def _answer(self, request: Request) -> str:
        text = request.messages[-1].text
        self.asked.append(text)
        return f"{text} {len(self.asked)}" if request.generation.sampling else f"to {text}"

    def __call__(self, source: Any, prompt: Any = "q", **options: Any) -> list[str | None]:
        outcomes = self.model(source=source, user_prompt=prompt, show_progress=False, **options)
        return [outcome.result.caption if outcome.result else None for outcome in outcomes]

    def since(self) -> int:
        """How many questions reached the model since the last call of this."""
        count, self.asked = len(self.asked), []
        return count


@pytest.fixture
def counting() -> Iterator[Counting]:
    made = Counting()
    yield made
    made.model.unload()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    paths = picture_files(folder, 6)
    for path in paths:
        _age(path, 60)
    return paths


def _age(path: Path, seconds: float) -> None:
    """Make a file look written ``seconds`` ago, as far as one can (ctime cannot be set)."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_second_run_computes_nothing(counting: Counting, files: list[Path]) -> None:
    first = counting(files)
    assert counting.since() == 6
    assert counting(files) == first == ["to q"] * 6
    assert counting.since() == 0


def test_more_rows_compute_only_what_is_missing(counting: Counting, files: list[Path]) -> None:
    counting(files[:4])
    counting.since()
    counting(files)
    assert counting.since() == 2


def test_everything_of_an_answer_comes_back(tmp_path: Path) -> None:
    model = scripted(boxes_json((10, 10, 50, 40)), fingerprint="boxes")
    picture().save(tmp_path / "a.png")
    first, second = (model(source=[tmp_path / "a.png"], show_progress=False)[0].unwrap() for _ in range(2))
    assert first.grounding == "found"
    assert second == first
    model.unload()


def test_a_moved_or_renamed_file_is_known(counting: Counting, files: list[Path], tmp_path: Path) -> None:
    counting([files[0]])
    files[0].rename(tmp_path / "elsewhere.png")
    counting.since()
    assert counting([tmp_path / "elsewhere.png"]) == ["to q"]
    assert counting.since() == 0


def test_bytes_and_the_same_file_are_one(counting: Counting, files: list[Path]) -> None:
    counting([files[0]])
    counting.since()
    counting([files[0].read_bytes()])
    assert counting.since() == 0


def test_arrays_are_known_by_their_pixels(counting: Counting) -> None:
    counting([picture()])
    counting.since()
    counting([picture()])
    assert counting.since() == 0
    counting([picture(113, 84)])
    assert counting.since() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"max_new_tokens": 7},
        {"system": "be brief"},
        {"repetition_penalty": 1.1},
        {"stop": ["."]},
        {"num_beams": 2},
    ],
    ids=str,
)
def test_another_setting_is_another_question(
    counting: Counting, files: list[Path], change: dict[str, Any]
) -> None:
    counting([files[0]])
    counting.since()
    counting([files[0]], **change)
    assert counting.since() == 1
    counting([files[0]], **change)
    assert counting.since() == 0


def test_another_prompt_or_task_is_another_question(counting: Counting, files: list[Path]) -> None:
    counting([files[0]])
    counting([files[0]], "other")
    counting([files[0]], None)
    assert counting.since() == 3


def test_every_field_of_a_job_is_part_of_the_key_or_excused() -> None:
    excused = {"sources", "index", "interactive", "task"}  # contents and ``asked`` stand in the key
    keyed = {"prompt", "phrase", "system", "generation", "schema", "history", "joining", "turn"}
    assert {field.name for field in dataclasses.fields(Job)} == excused | keyed


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other"},
        {"revision": "b" * 40},
        {"dtype": "float16"},
        {"quantization": "4bit"},
        {"chat_template": "{{ other }}"},
        {"max_pixels": 50_000},
        {"model_type": "llava"},
    ],
    ids=str,
)
def test_another_model_is_another_question(counting: Counting, change: dict[str, Any]) -> None:
    model = counting.model
    before = identity.model_identity(model)
    model.asker = dataclasses.replace(model.asker, info=dataclasses.replace(model.info, **change))
    assert identity.model_identity(model) != before


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": "someone/lora"},
        {"processor": "someone/processor"},
        {"base_url": "http://localhost:9/v1"},
        {"model_kwargs": {"rope": 2}},
        {"quantization_config": {"bits": 3}},
    ],
    ids=str,
)
def test_another_way_of_loading_is_another_question(counting: Counting, change: dict[str, Any]) -> None:
    before = identity.model_identity(counting.model)
    counting.model.spec = dataclasses.replace(counting.model.spec, **change)
    assert identity.model_identity(counting.model) != before


def test_how_an_answer_is_fetched_is_no_other_question(counting: Counting) -> None:
    model = counting.model

    def identity_with(**engine_args: Any) -> dict[str, Any] | None:
        model.spec = dataclasses.replace(model.spec, engine_args=engine_args)
        return identity.model_identity(model)

    plain = identity_with()
    assert identity_with(num_cpus=4, max_restarts=-1) == plain
    assert identity_with(retries=9, backoff=1.0, timeout=60, media_folder="/tmp/media") == plain
    assert identity_with(extra_body={"top_k": 1}, num_cpus=4) != plain


def test_another_family_version_is_another_question(counting: Counting) -> None:
    model = counting.model
    before = identity.model_identity(model)
    model.asker = dataclasses.replace(model.asker, family=dataclasses.replace(model.family, version=99))
    assert identity.model_identity(model) != before


def test_an_adapter_trained_again_in_place_is_another_one(counting: Counting, tmp_path: Path) -> None:
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"one")
    counting.model.spec = dataclasses.replace(counting.model.spec, adapter=str(weights.parent))
    before = identity.model_identity(counting.model)
    weights.write_bytes(b"second")
    assert identity.model_identity(counting.model) != before


def test_no_credentials_in_key_material_or_file(files: list[Path], tmp_path: Path) -> None:
    counting = Counting()
    counting.model.spec = dataclasses.replace(
        counting.model.spec, base_url="https://user:hunter2@host/v1?key=s3cret", api_key="sk-topsecret"
    )
    text = repr(identity.model_identity(counting.model))
    counting([files[0]], ledger=tmp_path / "l.sqlite3")
    counting.model.unload()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("l.sqlite3*"))
    for secret in ("hunter2", "s3cret", "topsecret"):
        assert secret not in text
        assert secret.encode() not in stored


def test_a_nameless_script_is_never_kept(files: list[Path]) -> None:
    counting = Counting(fingerprint=None)
    counting(files)
    counting(files)
    assert counting.since() == 12
    assert not ledger.default_path().exists()
    counting.model.unload()


def test_failed_rows_are_tried_again(files: list[Path]) -> None:
    broken = [True]
    model = scripted(lambda r: GenerationError("busy") if broken[0] else "fine", fingerprint="moody")
    assert model(source=[files[0]], user_prompt="q", show_progress=False)[0].error is not None
    broken[0] = False
    assert model(source=[files[0]], user_prompt="q", show_progress=False)[0].unwrap().caption == "fine"
    model.unload()


def test_sampled_answers_are_reused_only_if_asked(counting: Counting, files: list[Path]) -> None:
    first = counting([files[0]] * 3, temperature=0.7)
    assert len(set(first)) == 3
    again = counting([files[0]] * 3, temperature=0.7)
    assert counting.since() == 6
    assert set(again) & set(first) == set()
    kept = counting([files[0]] * 3, temperature=0.7, reuse_sampled=True)
    assert counting.since() == 0
    assert len(set(kept)) == 3


def test_off_by_option_and_by_setting(
    counting: Counting, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting(files, ledger=False)
    counting(files, ledger="off")
    monkeypatch.setenv("VLM_NB_LEDGER", "off")
    counting(files)
    assert counting.since() == 18
    assert not ledger.default_path().exists()


def test_a_named_file_is_used(counting: Counting, files: list[Path], tmp_path: Path) -> None:
    counting(files, ledger=str(tmp_path / "deep" / "mine.sqlite3"))
    assert (tmp_path / "deep" / "mine.sqlite3").exists()
    assert not ledger.default_path().exists()


def test_single_calls_use_none(counting: Counting, files: list[Path]) -> None:
    counting.model.ask(files[0], "q")
    counting.model(source=files[0], user_prompt="q")
    assert not ledger.default_path().exists()
    outcome = counting.model(source=files[0], user_prompt="q", ledger=True)
    assert outcome.unwrap().caption == "to q"
    assert ledger.default_path().exists()


# Files that change ------------------------------------------------------------------------------------------


def test_a_changed_file_is_a_new_question(counting: Counting, files: list[Path]) -> None:
    counting([files[0]])
    counting.since()
    picture(90, 90).save(files[0])
    counting([files[0]])
    assert counting.since() == 1


def test_a_change_that_keeps_size_and_time_is_seen_while_the_file_is_young(
    counting: Counting, tmp_path: Path
) -> None:
    path = tmp_path / "a.bmp"
    picture(60, 60).save(path)
    counting([path])
    counting.since()
    stat = path.stat()
    picture(60, 60, (0, 0, 10, 10)).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    counting([path])
    assert counting.since() == 1


@pytest.mark.parametrize(("mtime", "ctime", "trusted"), [(10, 10, True), (1, 10, False), (10, 1, False)])
def test_a_file_is_trusted_only_if_both_times_are_old(mtime: float, ctime: float, trusted: bool) -> None:
    now = 1_700_000_000.0
    stamp = Stamp(1, 2, int((now - mtime) * 1e9), int((now - ctime) * 1e9))
    assert stamp.settled(now) is trusted


def test_the_shortcut_saves_reading_and_verify_does_not_trust_it(
    counting: Counting, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "TRUST_SECONDS", -1.0)
    counting(files)
    read: list[str] = []
    real = book.Book.read
    monkeypatch.setattr(
        book.Book, "read", lambda self, source: read.append(source.label) or real(self, source)
    )
    counting(files)
    assert read == []
    counting(files, verify=True)
    assert len(read) == 6
    assert counting.since() == 6


def test_verify_sees_what_the_shortcut_cannot(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "TRUST_SECONDS", -1.0)
    path = tmp_path / "a.bmp"
    picture(60, 60).save(path)
    counting([path])
    counting.since()
    real = Stamp.of(path.stat())
    picture(60, 60, (0, 0, 10, 10)).save(path)
    monkeypatch.setattr(Stamp, "of", classmethod(lambda cls, stat: real))
    counting([path])
    assert counting.since() == 0, "nothing to see: all five facts are the same"
    counting([path], verify=True)
    assert counting.since() == 1


def test_a_file_that_changes_between_look_up_and_decoding_is_answered_for_what_it_holds(
    counting: Counting, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "TRUST_SECONDS", -1.0)
    counting([files[0]])
    real = book.Book.known

    def late(self: book.Book, job: Job) -> list[str] | None:
        contents = real(self, job)
        picture(90, 90).save(files[0])
        return contents

    with monkeypatch.context() as patch:
        patch.setattr(book.Book, "known", late)
        counting([files[0]], "other")
    counting.since()
    counting([files[0].rename(files[0].with_name("copy.png"))], "other")
    assert counting.since() == 0, "it was recorded under what it holds now"


# Faults -----------------------------------------------------------------------------------------------------


def _refuse(message: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError(message)

    return refuse


def test_a_full_disk_is_one_warning_and_every_row_answered(
    counting: Counting, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "l.sqlite3"
    with_room = Ledger(place)
    pages = int(with_room._db.execute("PRAGMA page_count").fetchone()[0])
    with_room.close()
    real = store.set_up

    def small(db: sqlite3.Connection, path: Path) -> bool:
        db.execute(f"PRAGMA max_page_count = {pages + 4}")
        return real(db, path)

    prompts = [f"{number} " + "long " * 500 for number in range(6)]
    with monkeypatch.context() as patch:
        patch.setattr(store, "set_up", small)
        with pytest.warns(UserWarning, match=r"full.*goes on without a ledger") as caught:
            assert None not in counting(files, prompts, ledger=place)
    assert len(caught) == 1
    made = Ledger(place)
    kept = made.count()
    made.close()
    assert 0 < kept < 6
    counting.since()
    counting(files, prompts, ledger=place)
    assert counting.since() == 6 - kept


def test_a_corrupt_ledger_is_one_warning(counting: Counting, files: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "l.sqlite3"
    place.write_bytes(b"this is no database, but it is a file" * 100)
    with pytest.warns(UserWarning, match="not a database") as caught:
        assert None not in counting(files, ledger=place)
    assert len(caught) == 1
    assert place.read_bytes().startswith(b"this is no database"), "it is not ours to delete"


def test_a_ledger_damaged_in_the_middle_is_one_warning(
    counting: Counting, files: list[Path], tmp_path: Path
) -> None:
    place = tmp_path / "l.sqlite3"
    counting(files, ledger=place)
    with_size = place.stat().st_size
    with place.open("r+b") as stream:
        for offset in range(4096, with_size, 4096):
            stream.seek(offset)
            stream.write(b"\xff" * 64)
    with pytest.warns(UserWarning, match=r"malformed|corrupt") as caught:
        assert None not in counting(files, ledger=place)
    assert len(caught) == 1


def test_a_read_only_ledger_is_one_warning(
    counting: Counting, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "l.sqlite3"
    Ledger(place).close()
    real = sqlite3.connect
    monkeypatch.setattr(
        store.sqlite3, "connect", lambda path, **kw: real(f"file:{path}?mode=ro", uri=True, **kw)
    )
    with pytest.warns(UserWarning, match="readonly") as caught:
        assert None not in counting(files, ledger=place)
    assert len(caught) == 1


def test_a_ledger_that_cannot_be_made_is_one_warning(
    counting: Counting, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="without a ledger") as caught:
        assert None not in counting(files, ledger=tmp_path / "file" / "l.sqlite3")
    assert len(caught) == 1


def test_a_ledger_of_a_newer_version_is_left_alone(
    counting: Counting, files: list[Path], tmp_path: Path
) -> None:
    place = tmp_path / "l.sqlite3"
    made = Ledger(place)
    made._db.execute("PRAGMA user_version = 99")
    made.close()
    with pytest.warns(UserWarning, match="newer vlm_nb"):
        assert None not in counting(files, ledger=place)


def test_an_unreadable_record_is_computed_again(
    counting: Counting, files: list[Path], tmp_path: Path
) -> None:
    place = tmp_path / "l.sqlite3"
    counting([files[0]], ledger=place)
    made = Ledger(place)
    made._db.execute("UPDATE answers SET answer = '{\"caption\": 3'")
    made.close()
    counting.since()
    assert counting([files[0]], ledger=place) == ["to q"]
    assert counting.since() == 1


def test_failure_in_mid_run_keeps_what_was_committed(
    counting: Counting, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, real, calls = tmp_path / "l.sqlite3", Ledger.put, [0]

    def failing(self: Ledger, *args: Any, **kw: Any) -> None:
        calls[0] += 1
        if calls[0] > 3:
            raise LedgerError("database or disk is full")
        real(self, *args, **kw)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "put", failing)
        with pytest.warns(UserWarning, match="goes on without"):
            counting(files, ledger=place)
    counting.since()
    counting(files, ledger=place)
    assert counting.since() == 3


# The store itself -------------------------------------------------------------------------------------------


def test_a_network_file_system_gets_a_rollback_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path}/net nfs4 rw 0 0\n")
    monkeypatch.setattr(places, "_MOUNTS", mounts)
    assert places.on_network(tmp_path / "net" / "l.sqlite3")
    assert not places.on_network(tmp_path / "network" / "l.sqlite3")
    made = Ledger(tmp_path / "net" / "l.sqlite3")
    assert made._db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    made.put(b"k", '{"caption": "x"}', run=1)
    assert made._db.in_transaction, "commits wait for the disk there: they are grouped"
    monkeypatch.setattr(store, "GROUP_SECONDS", 0.0)
    time.sleep(0.001)
    made.tick()
    assert not made._db.in_transaction
    made.close()
    here = Ledger(tmp_path / "l.sqlite3")
    assert here._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    here.put(b"k", '{"caption": "x"}', run=1)
    assert not here._db.in_transaction
    here.close()


def test_the_cap_removes_the_oldest(tmp_path: Path) -> None:
    made = Ledger(tmp_path / "l.sqlite3", max_bytes=400_000)
    for number in range(600):
        made.put(number.to_bytes(32, "big"), json.dumps({"caption": "x" * 1000}), run=1)
    assert made.keep_cap() > 0
    assert made.size() <= 400_000
    assert made.get((599).to_bytes(32, "big")) is not None
    assert made.get((0).to_bytes(32, "big")) is None
    made.close()
    assert (tmp_path / "l.sqlite3").stat().st_size <= 450_000


def test_size_runs_export_prune(counting: Counting, files: list[Path], tmp_path: Path) -> None:
    assert ledger.size() == 0
    assert ledger.runs() == []
    counting(files)
    counting([*files, tmp_path / "gone.png"], "other")
    assert ledger.size() > 0
    first, second = ledger.runs()
    assert (first["rows"], first["hits"], first["failed"], first["kept"]) == (6, 0, 0, 6)
    assert (second["rows"], second["failed"], second["model"]) == (7, 1, "scripted")
    assert ledger.export(tmp_path / "rows.jsonl") == 12
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["caption"] for row in rows} == {"to q", "to other"}
    assert {row["prompt"] for row in rows} == {"q", "other"}
    assert rows[0]["source"].endswith(".png")
    assert ledger.prune(older_than_days=1) == 0
    assert ledger.prune(model="another") == 0
    assert ledger.prune(model="scripted") == 12
    counting(files)
    assert ledger.prune(max_gb=1) == 0
    assert ledger.prune() == 6


def test_looking_at_a_missing_ledger_says_so_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger at"):
        ledger.size(tmp_path / "none.sqlite3")
    assert not (tmp_path / "none.sqlite3").exists()


def test_many_threads_one_ledger(tmp_path: Path) -> None:
    place = tmp_path / "l.sqlite3"
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            made = Ledger(place)
            for turn in range(50):
                made.put(f"{number}-{turn}".encode(), "{}", run=number)
            made.close()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    made = Ledger(place)
    assert made.count() == 300
    made.close()


def test_urls_are_stored_without_user_info_and_query(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlm_nb.sources import Source

    picture().save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(book, "fetch", lambda source, **_: Source(source.label, "bytes", data))
    counting(["https://me:hunter2@host.example/a.png?token=s3cret"])
    for suffix in ("", "-wal"):
        stored = Path(f"{ledger.default_path()}{suffix}")
        text = stored.read_bytes() if stored.exists() else b""
        assert b"hunter2" not in text
        assert b"s3cret" not in text


def test_closing_waits_for_the_threads_that_read(tmp_path: Path) -> None:
    """A query on a connection that is being closed would end the process."""
    for number in range(20):
        ledger = Ledger(tmp_path / f"{number}.sqlite")
        ledger.put(b"k" * 32, "{}", run=1)
        stop = threading.Event()

        def read(ledger: Ledger = ledger, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                assert ledger.get(b"k" * 32) in ("{}", None)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        time.sleep(0.01)
        ledger.close()
        stop.set()
        for reader in readers:
            reader.join()
        assert ledger.get(b"k" * 32) is None
