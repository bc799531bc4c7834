"""Counting in machine code: what is read, what is counted, and what is missed is said."""

from __future__ import annotations

from dataclasses import replace

import ptxas
import pytest
import sass
from harness import sass_model
from harness.sass_model import Control, Step

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


def test_lost_addresses_are_found() -> None:
    begun = "add.s64 \t%rd258, 0, %rd257;\n\tst.global.f32 \t[%rd258], %f676;"
    code = "\n.visible .entry {}(\n{{\n\tadd.s64 \t%rd2, %rd1, 8;\n\t{}\n}}\n"
    assert ptxas.lost_addresses(code.format("good", "ret;") + code.format("bad", begun)) == ["bad"]
    assert ptxas.lost_addresses(code.format("good", "ret;")) == []


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


def test_loads_behind_the_first_store_are_seen() -> None:
    load, store = (sass.Instruction(name, ("for (rows)",)) for name in ("LDG.E.128", "STG.E.128"))
    assert sass.batched([load, load, store], "rows") == 2
    assert sass.batched([load, load, store], "columns") == 0
    made = [*code(), load, store, load]  # the listing has one load
    row = sass.count(made, replace(CASE, batched={"for (rows)": 3}))
    assert (row["batched"], row["least_batched"]) == (2, 3)
    assert sass.faults([row]) == ["k: 2 loads come before the first store, 3 expected"]


def test_a_case_over_its_limit_fails() -> None:
    row = sass.count(code(), replace(CASE, moved=3_000_000, overlapped="for (columns)"))
    assert row["warp_instructions"] == 38
    assert row["issue_cycles"] == 38 * 8 / 4
    assert row["copy_us"] == {"H100": 1.0, "H200": 0.7}
    assert sass.faults([row]) == ["k: loads come after the arithmetic that they should overlap"]
    slow = sass.count(code(), replace(CASE, blocks=132 * 100))
    assert slow["issue_cycles"] == 100 * 76
    assert sass.faults([slow]) == ["k, small: at least 3.8 us, over 1.0"]


def test_control_words_are_read() -> None:
    listing = LISTING.replace(
        "c[0x0][0x28] ;",
        "c[0x0][0x28] ;  /* 0x00000a00ff017b82 */\n\t\t/* 0x004fe4000f8e00ff */",
    )
    first, second = [one for one in sass.straight(sass.parse(listing, SOURCE)["k"]) if one.name][:2]
    assert first.control == Control(stall=2, sets=7, read=7, waits=4)
    assert second.control == sass_model.NO_CONTROL


def steps(*named: tuple[str, Control]) -> list[Step]:
    return [Step(name, False, control) for name, control in named]


def test_the_model_waits_where_nvcc_says_so() -> None:
    load, use = Control(stall=1, sets=0), Control(stall=4, waits=1)
    way = steps(("LDS", load), ("FFMA", use), ("FFMA", Control()))
    # Issued at 0, its result there after the unit's cycle and the latency; then 4 cycles of rest.
    assert sass_model.cycles([way]) == 29 + 4 + 1
    assert sass_model.cycles([way[1:]]) == 4 + 1


def test_the_model_has_four_schedulers_and_one_unit_for_memory() -> None:
    way = steps(*[("FFMA", Control())] * 10)
    assert sass_model.cycles([way]) == sass_model.cycles([way] * 4) == 10
    assert sass_model.cycles([way] * 8) == 20
    one = steps(("LDS.128", Control(sets=0)), ("FFMA", Control(waits=1)))
    assert sass_model.cycles([one] * 16) - sass_model.cycles([one]) == 15 * 4


def test_the_model_waits_at_barriers_for_the_last_warp() -> None:
    way = steps(*[("FFMA", Control())] * 5, ("BAR.SYNC", Control()), ("FFMA", Control()))
    last = 2 * 6 - 1  # of 8 warps: two for a scheduler; and how long the barrier keeps its unit
    assert sass_model.cycles([way] * 8) in range(last + sass_model.BARRIER + 2, last + 26)
    early = steps(("BAR.SYNC", Control()), ("FFMA", Control()))
    assert sass_model.cycles([way, *[early] * 7]) == sass_model.cycles([early] * 8) + 5


def test_the_way_repeats_loops_and_leaves_out_what_is_rare() -> None:
    listed = code()
    names, controls = [one.name for one in listed], [one.control for one in listed]
    spans = {(loop.first, loop.last): 2 for loop in sass.loops(listed)}
    rare = {i for i, one in enumerate(listed) if one.comes_from("rare()")}
    way = sass_model.way_of(names, controls, spans, rare)
    turn = ["LDG.E", *["FFMA", "BRA"] * 2, "BRA"]
    assert [step.name for step in way] == ["LDC", *turn * 2, "EXIT"]
    assert [step.jumps for step in way].count(True) == 2 + 1


def test_the_first_warps_take_the_turns_that_others_do_not() -> None:
    assert [sass._turns_of(0.5, warp / 4) for warp in range(4)] == [1, 1, 0, 0]
    assert [sass._turns_of(4.25, warp / 4) for warp in range(4)] == [5, 4, 4, 4]
    assert {sass._turns_of(3, warp / 4) for warp in range(4)} == {3}


def test_a_case_is_modeled_by_its_first_turn_and_those_after() -> None:
    case = replace(CASE, warps=1, repeated="for (rows)", turns={**CASE.turns, "for (rows)": (1,)})
    one, many = (
        sass.modeled(code(), replace(case, turns={**case.turns, "for (rows)": (turns,)}))
        for turns in (1, 101)
    )
    assert many > 50 * one
    row = sass.count(code(), replace(case, most_us=9.0, most_model_us=0.001))
    assert row["model_us"] == round(one, 1)
    assert sass.faults([row | {"model_us": 0.2}]) == ["k, small: 0.2 us by the model, over 0.001"]
