"""Runs to one page that a person would show, with what a paper needs beside it."""

from kneeoa_mm.analysis.report.page import report

__all__ = ["report"]
