"""Errors cross processes whole: Ray pickles what a worker raises."""

import inspect
import pickle

import pytest

from medsynth import errors

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.UserError) and kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_s_error_comes_back_as_it_was(kind: type[errors.UserError]) -> None:
    back = pickle.loads(pickle.dumps(kind("spec.yaml: unknown key 'sede'; did you mean 'seed'?")))
    assert type(back) is kind
    assert str(back) == "spec.yaml: unknown key 'sede'; did you mean 'seed'?"


@pytest.mark.parametrize("reason", errors.Reason)
def test_a_rejection_comes_back_with_its_reason(reason: errors.Reason) -> None:
    back = pickle.loads(pickle.dumps(errors.Rejected(reason, "half of it")))
    assert (back.reason, back.detail, str(back)) == (reason, "half of it", f"{reason.value}: half of it")
    assert not isinstance(back, errors.UserError)
