import os
import subprocess

from fnostab.ptychography.training.environment import git_state, owner


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_outside_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_state() == {"commit": None, "dirty": None}


def test_a_change_makes_a_commit_dirty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    clean = git_state()
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (tmp_path / "new").write_text("")
    assert git_state() == {"commit": clean["commit"], "dirty": True}


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state() == {"commit": None, "dirty": None}


def test_the_owner_names_process_and_host():
    pid, host = owner().split("@")
    assert int(pid) == os.getpid()
    assert host
