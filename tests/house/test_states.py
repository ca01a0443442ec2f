from tests.house.states import PAGE, page


def test_the_manual_draws_the_tables_that_the_code_runs_on():
    assert PAGE.read_text() == page(), "run: python -m tests.house.states"
