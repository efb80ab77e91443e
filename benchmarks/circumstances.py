"""What stands beside every measurement: when, on which machine, with what, and how busy that was. torch is asked of installed packages alone,
so that a process that is not to be measured with it need not import it."""

import datetime
import importlib.metadata
import os
import platform

from dnnlib.machine import processor_name


def load_average():
    """Processes that wanted a core within the last minute, on average; None where the system does not say."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def circumstances():
    """{date, processor, cpu_count, system, python, torch, load_average}, as a result file states them."""
    return dict(
        date=datetime.date.today().isoformat(),
        processor=processor_name(),
        cpu_count=os.cpu_count(),
        system=platform.system(),
        python=platform.python_version(),
        torch=importlib.metadata.version("torch"),
        load_average=load_average(),
    )
