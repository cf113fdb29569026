"""Prints what an image of the card is built from: the kernel's wrapper in Verilog, and the linker's configuration.

    print_build.py kernel CHANNELS    card_kernel.v: fpga/rtl/card_top.sv with one AXI port for each channel
    print_build.py link CARD          the .cfg file of v++ for a card of platforms.yaml
    print_build.py sources            the RTL files of the kernel, packages first, relative to the root
    print_build.py platform CARD KEY  one value of platforms.yaml
"""

from __future__ import annotations

import pathlib
import sys

import yaml

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parent / "tools"))
import rtl_sources  # noqa: E402

KERNEL = "mnemo_card"
INSTANCE = "mnemo_card_1"

# Signals of AXI interfaces: name, width, whether the kernel drives it, and the signal of card_top (None: a constant).
CONTROL = [
    ("awvalid", 1, False, "s_awvalid"),
    ("awready", 1, True, "s_awready"),
    ("awaddr", 13, False, "s_awaddr"),
    ("wvalid", 1, False, "s_wvalid"),
    ("wready", 1, True, "s_wready"),
    ("wdata", 32, False, "s_wdata"),
    ("wstrb", 4, False, None),
    ("bvalid", 1, True, "s_bvalid"),
    ("bready", 1, False, "s_bready"),
    ("bresp", 2, True, "s_bresp"),
    ("arvalid", 1, False, "s_arvalid"),
    ("arready", 1, True, "s_arready"),
    ("araddr", 13, False, "s_araddr"),
    ("rvalid", 1, True, "s_rvalid"),
    ("rready", 1, False, "s_rready"),
    ("rdata", 32, True, "s_rdata"),
    ("rresp", 2, True, "s_rresp"),
]
READ = [
    ("arvalid", 1, True, "ar_valid"),
    ("arready", 1, False, "ar_ready"),
    ("araddr", 64, True, "ar_addr"),
    ("arlen", 8, True, "ar_len"),
    ("arsize", 3, True, None),
    ("arburst", 2, True, None),
    ("rvalid", 1, False, "r_valid"),
    ("rready", 1, True, "r_ready"),
    ("rdata", 512, False, "r_data"),
    ("rresp", 2, False, "r_resp"),
    ("rlast", 1, False, "r_last"),
]
WRITE = [
    ("awvalid", 1, True, "aw_valid"),
    ("awready", 1, False, "aw_ready"),
    ("awaddr", 64, True, "aw_addr"),
    ("awlen", 8, True, "aw_len"),
    ("awsize", 3, True, None),
    ("awburst", 2, True, None),
    ("wvalid", 1, True, "w_valid"),
    ("wready", 1, False, "w_ready"),
    ("wdata", 512, True, "w_data"),
    ("wstrb", 64, True, "w_strb"),
    ("wlast", 1, True, "w_last"),
    ("bvalid", 1, False, "b_valid"),
    ("bready", 1, True, "b_ready"),
    ("bresp", 2, False, "b_resp"),
]
CHANNEL_ADDRESS_BITS = 40


def channel_ports(channels: int) -> list[str]:
    return [f"m_axi_{n:02}" for n in range(channels)]


def kernel(channels: int) -> str:
    interfaces = [("s_axi_control", CONTROL)]
    interfaces += [(port, READ) for port in channel_ports(channels)]
    interfaces += [("m_axi_host", READ + WRITE)]
    ports = ["input wire ap_clk", "input wire ap_rst_n"]
    for name, signals in interfaces:
        for signal, width, driven, _ in signals:
            span = f" [{width - 1}:0]" if width > 1 else ""
            ports.append(f"{'output' if driven else 'input'} wire{span} {name}_{signal}")
    ports.append("output wire interrupt")
    lines = [
        f"// The kernel {KERNEL} with {channels} channels, made by fpga/build/print_build.py. Latency and stalls are those",
        "// of card_top, whose ports it gives the names that v++ knows AXI interfaces by.",
        f"module {KERNEL} (",
        *(f"  {port}{',' if port is not ports[-1] else ''}" for port in ports),
        ");",
        "  reg rst;",
        "  always @(posedge ap_clk) rst <= !ap_rst_n;",
    ]
    connections = [".clk(ap_clk)", ".rst(rst)", ".irq(interrupt)"]
    connections += [f".{to}(s_axi_control_{signal})" for signal, _, _, to in CONTROL if to]
    lines += [f"  wire [{channels * CHANNEL_ADDRESS_BITS - 1}:0] channel_addresses;"]
    for signal, _, _, to in READ:
        if to == "ar_addr":
            connections.append(".ar_addr(channel_addresses)")
        elif to:
            # The last channel has the highest bits of a packed array.
            parts = ", ".join(f"{port}_{signal}" for port in reversed(channel_ports(channels)))
            connections.append(f".{to}({{{parts}}})")
    connections += [f".h_{to}(m_axi_host_{signal})" for signal, _, _, to in READ + WRITE if to]
    for n, port in enumerate(channel_ports(channels)):
        low = n * CHANNEL_ADDRESS_BITS
        lines.append(
            f"  assign {port}_araddr = {{{64 - CHANNEL_ADDRESS_BITS}'d0, channel_addresses[{low} +: {CHANNEL_ADDRESS_BITS}]}};"
        )
    for name, signals in interfaces[1:]:
        for signal, _, driven, to in signals:
            if to is None and driven:
                # Beats of 64 bytes, at rising addresses.
                lines.append(f"  assign {name}_{signal} = {'3' + chr(39) + 'd6' if signal.endswith('size') else '2' + chr(39) + 'd1'};")
    lines += [
        f"  card_top #(.CHANNELS({channels})) card (",
        *(f"    {part}{',' if part is not connections[-1] else ''}" for part in connections),
        "  );",
        "endmodule",
        "",
    ]
    return "\n".join(lines)


def platforms() -> dict[str, dict[str, object]]:
    known = yaml.safe_load((FOLDER / "platforms.yaml").read_text())
    assert isinstance(known, dict)
    return known


def platform(card: str) -> dict[str, object]:
    known = platforms()
    if card not in known:
        raise SystemExit(f"card {card!r} is not known; there are: {', '.join(known)}")
    return known[card]


def link(card: str) -> str:
    of = platform(card)
    channels = int(str(of["channels"]))
    lines = [
        "# Made by fpga/build/print_build.py from platforms.yaml.",
        f"platform={of['platform']}",
        f"kernel_frequency={of['clock_mhz']}",
        "",
        "[connectivity]",
        f"nk={KERNEL}:1:{INSTANCE}",
        f"slr={INSTANCE}:{of['slr']}",
    ]
    lines += [f"sp={INSTANCE}.{port}:HBM[{n}]" for n, port in enumerate(channel_ports(channels))]
    lines += [f"sp={INSTANCE}.m_axi_host:{'HOST[0]' if of['host'] else 'HBM[0]'}", ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["kernel", channels] if channels.isdigit() and int(channels) in (1, 2, 4, 8, 16, 32):
            print(kernel(int(channels)), end="")
        case ["kernel", channels]:
            raise SystemExit(f"CHANNELS is {channels}; allowed: 1, 2, 4, 8, 16, 32")
        case ["link", card]:
            print(link(card), end="")
        case ["sources"]:
            print("\n".join(rtl_sources.short(path) for path in rtl_sources.closure("card_top")))
        case ["platform", card, key]:
            of = platform(card)
            if key not in of:
                raise SystemExit(f"key {key!r} is not known; there are: {', '.join(of)}")
            print(of[key])
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
