"""What a client's `kv` may name, and what only the operator may."""

import pytest

import foveate
from foveate.serve import Settings
from foveate.serve.choice import chosen
from foveate.serve.problems import Problem
from foveate.serve.schema import Choice

OWN = Settings(method="foveate:aircache", options={"keep": 0.3})


def test_options_change_a_method_of_the_operator_s_own():
    found = chosen(Choice.model_validate({"keep": 0.05}), OWN)
    assert found.method == foveate.aircache(keep=0.05)
    assert found.told == {"method": "foveate:aircache", "keep": 0.05}
    assert chosen(None, OWN).told == {"method": "foveate:aircache", "keep": 0.3}


@pytest.mark.parametrize("name", ["foveate:snapkv", "os:system", "foveate:aircache+os:system"])
def test_clients_cannot_name_functions(name):
    with pytest.raises(Problem) as caught:
        chosen(Choice.model_validate({"method": name}), OWN)
    assert caught.value.status == 400
