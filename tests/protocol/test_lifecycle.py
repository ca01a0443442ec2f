"""A state machine is its table."""

from enum import StrEnum

import pytest

from nodes.protocol.lifecycle import IllegalTransition, Lifecycle


class Light(StrEnum):
    OFF = "off"
    ON = "on"
    BROKEN = "broken"


LIGHT: Lifecycle[Light] = Lifecycle(
    initial=Light.OFF,
    table={
        Light.OFF: {"press": Light.ON, "drop": Light.BROKEN},
        Light.ON: {"press": Light.OFF},
        Light.BROKEN: {},
    },
)


def test_its_states_are_those_of_the_table_and_the_last_ones_are_never_left():
    assert LIGHT.states == tuple(Light)
    assert (LIGHT.live, LIGHT.terminal) == ({Light.OFF, Light.ON}, {Light.BROKEN})


def test_an_event_leads_to_the_next_state_and_may_happen_only_where_the_table_says():
    assert LIGHT.after(Light.OFF, "press") is Light.ON
    assert LIGHT.sources("press") == {Light.OFF, Light.ON}
    assert LIGHT.sources("drop") == {Light.OFF}
    assert LIGHT.sources("nothing") == set()


def test_what_cannot_happen_is_refused_in_words():
    with pytest.raises(IllegalTransition, match=r"^'press' cannot happen in state 'broken'$") as it:
        LIGHT.after(Light.BROKEN, "press")
    assert (it.value.state, it.value.event) == (Light.BROKEN, "press")


def test_it_draws_itself():
    assert LIGHT.mermaid().splitlines() == [
        "stateDiagram-v2",
        "    [*] --> off",
        "    off --> on: press",
        "    off --> broken: drop",
        "    on --> off: press",
        "    broken --> [*]",
    ]
