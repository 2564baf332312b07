"""Of every process that the tests start, before anything else: see that its fnostab is the one of its tree.

An editable installation puts a finder into each process, which finds what a tree does not have (a module that only the
other one has, say) in the repository. It is taken out.
"""

import importlib.util
import os
import sys

sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]

_found = importlib.util.find_spec("fnostab")
_wanted = os.path.join(os.environ["SAME_AS_TREE"], "fnostab", "__init__.py")
if _found is None or _found.origin != _wanted:
    raise SystemExit(f"fnostab is {_found and _found.origin}, not {_wanted}")
