"""Both import orders of pandas, reloading, and taking ``vlm`` away again: each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

FIRST_PANDAS = """
import pandas as pd
import vlm_nb
assert hasattr(pd.DataFrame, "vlm") and hasattr(pd.Series, "vlm")
"""
FIRST_US = """
import sys
import vlm_nb
assert "pandas" not in sys.modules
hooks = len(sys.meta_path)
import pandas as pd
assert pd.DataFrame({"a": [1]}).vlm.__class__.__name__ == "FrameAccessor"
assert pd.Series([1]).vlm.__class__.__name__ == "SeriesAccessor"
assert len(sys.meta_path) == hooks - 1, "the hook works once"
assert type(pd.__spec__.loader).__name__ == "SourceFileLoader"
assert "exec_module" not in vars(pd.__spec__.loader)
"""
A_SUBMODULE_FIRST = """
import vlm_nb
import pandas.api.types
import pandas as pd
assert hasattr(pd.DataFrame, "vlm")
"""
FROM_PANDAS = """
import vlm_nb
from pandas import DataFrame
assert hasattr(DataFrame, "vlm")
"""
LOOKED_FOR_FIRST = """
import importlib.util
import vlm_nb
assert importlib.util.find_spec("pandas")  # as transformers does, to know whether it is there
import pandas as pd
assert hasattr(pd.DataFrame, "vlm")
"""
TWICE = """
import vlm_nb
from vlm_nb import accessor
accessor.register(); accessor.register()
import sys
assert sum(type(f).__name__ == "_WhenPandasLoads" for f in sys.meta_path) == 1
import pandas as pd
accessor.register(); accessor.register()
accessor.unregister(); accessor.unregister()
assert not hasattr(pd.DataFrame, "vlm") and "vlm" not in dir(pd.DataFrame({"a": [1]}))
accessor.register()
assert hasattr(pd.DataFrame, "vlm")
"""
TAKEN_BACK_BEFORE = """
import vlm_nb
vlm_nb.accessor.unregister()
import pandas as pd
assert not hasattr(pd.DataFrame, "vlm")
"""
EXTENSION = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "vlm_nb")
import pandas as pd
assert hasattr(pd.DataFrame, "vlm")
shell.run_line_magic("unload_ext", "vlm_nb")
assert hasattr(pd.DataFrame, "vlm"), "it came with the import, and tables in use keep it"
vlm_nb = sys.modules["vlm_nb"]
vlm_nb.accessor.unregister()
shell.run_line_magic("load_ext", "vlm_nb")
shell.run_line_magic("reload_ext", "vlm_nb")
assert hasattr(pd.DataFrame, "vlm")
"""
LEAVES_OTHERS_ALONE = """
import pandas as pd
@pd.api.extensions.register_dataframe_accessor("vlm")
class Theirs:
    def __init__(self, frame): pass
import warnings
with warnings.catch_warnings(record=True):
    warnings.simplefilter("always")
    import vlm_nb
    from vlm_nb import accessor
accessor.unregister()
"""
A_BROKEN_ACCESSOR = """
import sys, logging
logging.disable()
import vlm_nb
sys.modules["vlm_nb.accessor.frame"] = None
import pandas as pd
assert pd.DataFrame({"a": [1]}).shape == (1, 1)
"""
SCRIPTS = {name: text for name, text in globals().items() if name.isupper() and isinstance(text, str)}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_in_a_fresh_interpreter(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", SCRIPTS[name]],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
