"""Which events begin and end the wait for a sign of life; that Prefect waits so stands in test_automations.py."""

from prefect.server.events.schemas.automations import EventTrigger

from tasks.automations import dead_run


def test_a_run_is_waited_for_from_its_beginning_and_not_only_from_its_first_heartbeat() -> None:
    trigger = EventTrigger.model_validate(dead_run(120.0).trigger.model_dump(mode="json"))
    begins, heartbeat = "prefect.flow-run.Running", "prefect.flow-run.heartbeat"
    assert (trigger.starts_after(begins), trigger.expects(begins)) == (True, False)
    assert (trigger.starts_after(heartbeat), trigger.expects(heartbeat)) == (True, True)
    for end in ("Completed", "Failed", "Crashed", "Cancelled"):
        assert trigger.expects(f"prefect.flow-run.{end}")
        assert not trigger.starts_after(f"prefect.flow-run.{end}")
