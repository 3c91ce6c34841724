import subprocess
import sys


def test_tables_and_reports_of_values_need_no_torch():
    """Importing it takes longer than they do."""
    modules = "langevin.evaluation.compare, langevin.report.values"
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
