"""Envelope encryption: what was stored at a place comes back from that place only."""

import itertools
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import services
from contracts.vault import Secret
from services.vault.envelope import BLOCK, MissingKeyError, Place, Sealed, TamperError, seal, unseal
from services.vault.keyfile import MasterKey

KEY = MasterKey("k1", bytes(range(100, 132)))
KEYS = {"k1": KEY}
PLACE = Place("credential", "app:1", "private_key", 1)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300))
def test_what_was_sealed_comes_back(text: str) -> None:
    assert unseal(KEYS, PLACE, seal(KEY, PLACE, Secret(text))) == Secret(text)


def test_the_same_value_twice_looks_different_and_its_length_is_blurred() -> None:
    assert seal(KEY, PLACE, Secret("same")).blob != seal(KEY, PLACE, Secret("same")).blob
    lengths = {len(seal(KEY, PLACE, Secret("x" * n)).blob) for n in range(BLOCK - 3)}
    assert len(lengths) == 1


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_refused(bit: int) -> None:
    sealed = seal(KEY, PLACE, Secret("value"))
    for index in range(len(sealed.blob)):
        blob = bytearray(sealed.blob)
        blob[index] ^= 1 << bit
        with pytest.raises(TamperError):
            unseal(KEYS, PLACE, Sealed("k1", bytes(blob)))


def test_every_cut_is_refused() -> None:
    sealed = seal(KEY, PLACE, Secret("value"))
    for length in range(len(sealed.blob)):
        with pytest.raises(TamperError):
            unseal(KEYS, PLACE, Sealed("k1", sealed.blob[:length]))
    with pytest.raises(TamperError):
        unseal(KEYS, PLACE, Sealed("k1", sealed.blob + bytes(BLOCK)))


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(PLACE, table="other"),
        replace(PLACE, record="app:2"),
        replace(PLACE, field="webhook_secret"),
        replace(PLACE, version=2),
        Place("credential", "app:1private", "_key", 1),
        Place("credentialapp:1", "", "private_key", 1),
    ],
)
def test_a_value_moved_elsewhere_is_refused_by_ids(elsewhere: Place) -> None:
    with pytest.raises(TamperError) as refused:
        unseal(KEYS, elsewhere, seal(KEY, PLACE, Secret("canary")))
    assert elsewhere.record in str(refused.value)
    assert "canary" not in str(refused.value)


def test_another_key_under_the_same_name_is_refused() -> None:
    other = MasterKey("k1", os.urandom(32))
    with pytest.raises(TamperError):
        unseal({"k1": other}, PLACE, seal(KEY, PLACE, Secret("value")))


def test_a_renamed_key_is_refused() -> None:
    sealed = seal(KEY, PLACE, Secret("value"))
    renamed = MasterKey("k2", bytes(range(100, 132)))
    with pytest.raises(TamperError):
        unseal({"k2": renamed}, PLACE, Sealed("k2", sealed.blob))


def test_a_missing_key_is_named() -> None:
    with pytest.raises(MissingKeyError, match=r"needs master key k3: put k3\.key back"):
        unseal(KEYS, PLACE, Sealed("k3", seal(KEY, PLACE, Secret("value")).blob))


def _nonces(count: int) -> set[bytes]:
    blobs = [seal(KEY, PLACE, Secret("same")).blob for _ in range(count)]
    return {nonce for blob in blobs for nonce in (blob[1:13], blob[61:73])}


def test_no_nonce_repeats_in_threads_or_after_a_fork() -> None:
    each = 500
    with ThreadPoolExecutor(16) as threads, multiprocessing.get_context("fork").Pool(4) as forks:
        sets = [*threads.map(_nonces, [each] * 16), *forks.map(_nonces, [each] * 8)]
    assert len(set(itertools.chain.from_iterable(sets))) == 24 * each * 2


def test_a_key_shows_nothing_of_itself() -> None:
    assert repr(KEY) == "MasterKey('k1')"
    assert bytes(range(100, 132)) not in KEY.check_value


def test_no_code_decrypts_into_a_buffer_that_keeps_unverified_bytes() -> None:
    sources = [file.read_text() for file in Path(services.__path__[0]).rglob("*.py")]
    assert any(".decrypt(" in source for source in sources)
    assert not [source for source in sources if "decrypt_into" in source]
