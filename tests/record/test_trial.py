"""Records of studies: what a later start adds to an earlier one."""

from trial_records import study_spec


def test_seeds_that_were_asked_for_stay_asked_for_but_of_an_arm_that_has_changed():
    before = {"control": {"model.fno_blocks": 3}, "arch_fix": {"model.fno_blocks": 4}}
    earlier = study_spec(before, seeds={"control": (0, 1, 2), "arch_fix": (0, 1)})
    now = study_spec({**before, "arch_fix": {"model.fno_blocks": 5}}, seeds={"control": (1, 5), "arch_fix": (7,)})
    assert now.extending(earlier).seeds == {"control": (0, 1, 2, 5), "arch_fix": (7,)}
    alone = study_spec({"control": before["control"]}, seeds={"control": (9,)})
    assert alone.extending(earlier).seeds == {"control": (0, 1, 2, 9), "arch_fix": (0, 1)}
