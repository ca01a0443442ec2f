"""Says in the end how many interleavings were tried."""


def pytest_terminal_summary(terminalreporter):
    tried = sum(
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "interleavings" and report.when == "call"
    )
    if tried:
        terminalreporter.write_line(f"{tried:,} interleavings were tried")
