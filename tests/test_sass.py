"""Counting in machine code: what is read, what is counted, and what is missed is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sass

SOURCE = {("k.cu", 1): "void k() {", ("k.cu", 2): "for (rows)", ("k.cu", 3): "rare();"}
SOURCE |= {("k.cu", 4): "for (columns)"}

# A loop over rows, in it one over columns, and a call that is rare; then what nvcc appends.
LISTING = """
\t.section\t.text.k,"ax",@progbits
.text.k:
\t//## File "k.cu", line 1
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
\t//## File "k.cu", line 2
        /*0010*/                   LDG.E R2, [R4] ;
.L_x_0:
\t//## File "k.cu", line 4
        /*0020*/                   FFMA R3, R2, R2, R3 ;
        /*0030*/              @!P0 BRA `(.L_x_0) ;
\t//## File "k.cu", line 3 inlined at "k.cu", line 2
\t//## File "k.cu", line 2
        /*0040*/               @P1 FADD R5, R5, R5 ;
\t//## File "k.cu", line 2
        /*0050*/               @P2 BRA `(.L_x_1) ;
        /*0060*/                   EXIT ;
.L_x_9:
        /*0070*/                   WARPSYNC.COLLECTIVE R28, `(.L_x_8) ;
        /*0080*/                   BRA `(.L_x_1) ;
\t.section\t.nv.info
        /*0000*/ \t.byte\t0x04 ;
"""
CASE = sass.Case(
    "k.cu", "k", "small", 1, 8, 1.0, {"for (rows)": (3,), "for (columns)": (5,)}, {"rare()": 0}
)


def code() -> list[sass.Instruction]:
    return sass.straight(sass.parse(LISTING, SOURCE)["k"])


def test_instructions_count_as_often_as_their_loops_turn() -> None:
    assert [one.name for one in code() if one.name] == (
        ["LDC", "LDG.E", "FFMA", "BRA", "FADD", "BRA", "EXIT"]
    )
    # One outside before, one behind; in the outer loop two; in the inner one two.
    assert sass.executed(code(), CASE) == 2 + 3 * (2 + 5 * 2)
    assert sass.executed(code(), replace(CASE, shares={})) == 2 + 3 * (3 + 5 * 2)


def test_loops_and_lines_that_are_gone_are_named() -> None:
    with pytest.raises(SystemExit, match=r"1 loops at 'for .planes.' expected, got 0"):
        sass.executed(code(), replace(CASE, turns={"for (planes)": (3,)}))
    with pytest.raises(SystemExit, match=r"2 loops at 'for .rows.' expected, got 1"):
        sass.executed(code(), replace(CASE, turns={"for (rows)": (3, 4)}))
    with pytest.raises(SystemExit, match="nothing comes from a line with 'never"):
        sass.executed(code(), replace(CASE, shares={"never()": 0}))


def test_loads_behind_the_arithmetic_are_seen() -> None:
    assert sass.overlaps(code(), "for (rows)")
    assert not sass.overlaps(code(), "for (columns)")  # it loads nothing
    assert not sass.overlaps(code(), "for (planes)")
    late = code()
    load, multiplication = 3, 5  # with the labels
    assert (late[load - 1].name, late[multiplication - 1].name) == ("LDG.E", "FFMA")
    late[load - 1], late[multiplication - 1] = late[multiplication - 1], late[load - 1]
    assert not sass.overlaps(late, "for (rows)")


def test_a_case_over_its_limit_fails() -> None:
    row = sass.count(code(), replace(CASE, moved=3_000_000, overlapped="for (columns)"))
    assert row["warp_instructions"] == 38
    assert row["issue_cycles"] == 38 * 8 / 4
    assert row["copy_us"] == {"H100": 1.0, "H200": 0.7}
    assert sass.faults([row]) == ["k: loads come after the arithmetic that they should overlap"]
    slow = sass.count(code(), replace(CASE, blocks=132 * 100))
    assert slow["issue_cycles"] == 100 * 76
    assert sass.faults([slow]) == ["k, small: at least 3.8 us, over 1.0"]
