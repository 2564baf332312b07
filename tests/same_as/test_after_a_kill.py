"""A trial that is killed and started again gives the numbers of one that was left alone."""

from same_as.arms import KILLED
from same_as.records import Trial, insist_same, read_lines

STEP = 100  # of 420, with 21 an epoch
STATE = "resume.safetensors"  # from which a trial goes on


class Watch:
    """Sees when a trial has come far enough: to some step, and to a state that is not the first."""

    def __init__(self, output):
        self.output = output
        self.states = set()

    @property
    def journal(self):
        return next(iter(self.output.rglob("journal.jsonl")), None)

    def step(self):
        lines = read_lines(self.journal) if self.journal else ()
        return max((line["s"] for line in lines if "train/loss" in line.get("v", {})), default=-1)

    def is_far_enough(self):
        for state in self.output.rglob(STATE):
            try:
                self.states.add(state.stat().st_mtime_ns)
            except FileNotFoundError:  # another has just taken its place
                continue
        return len(self.states) > 1 and self.step() >= STEP


def test_the_same_after_sigkill(trees, trained):
    _, head = trees
    output = head.work / "killed"
    watch = Watch(output)
    more = ("--output", output, "--tracking-uri", f"sqlite:///{head.work}/killed.db")
    command = ("train", head.write(KILLED), "--arm", "long", "--seed", "7", "--profile", "small", *more)
    head.run_until(watch.is_far_enough, *command)
    before = list(read_lines(watch.journal))
    assert not [line for line in before if line.get("e") == "outcome"], "it ended before it was killed"
    head.fnostab(*command)

    again = Trial(watch.journal.parent, of_baseline=False)
    assert again.lines[: len(before)] == before
    resumed = [line["p"]["step"] for line in again.lines if line.get("e") == "resumed"]
    assert len(resumed) == 1
    assert resumed[0] > 0
    baseline = trained[0]["long", 7]
    assert again.outcome == baseline.outcome
    insist_same(baseline.points, again.points)
    insist_same(baseline.tensors, again.tensors)
    assert [event for event in again.events if event[0] == "outcome"][-1] == baseline.events[-1]
