# Packages the kernel as mnemo_card.xo. Run by Vivado in batch mode, from the root of the project:
#   vivado -mode batch -source fpga/build/package_kernel.tcl -tclargs CHANNELS PART KERNEL_FILE XO_FILE WORK_FOLDER
# KERNEL_FILE is what `print_build.py kernel CHANNELS` printed.
if {$argc != 5} {
  error "package_kernel.tcl: CHANNELS PART KERNEL_FILE XO_FILE WORK_FOLDER are needed, $argc arguments are there"
}
lassign $argv channels part kernel_file xo_file work
set sources [split [exec python3 fpga/build/print_build.py sources] "\n"]

create_project -force mnemo_card $work/project -part $part
add_files -norecurse $sources
add_files -norecurse $kernel_file
set_property top mnemo_card [current_fileset]
set_property verilog_define {SYNTHESIS=1} [current_fileset]
update_compile_order -fileset sources_1

ipx::package_project -root_dir $work/ip -vendor mnemo -library kernel -taxonomy /KernelIP -import_files -set_current true
set core [ipx::current_core]
set_property core_revision 1 $core
set_property sdx_kernel true $core
set_property sdx_kernel_type rtl $core
set_property vitis_drc {ctrl_protocol user_managed} $core
set_property ipi_drc {ignore_freq_hz true} $core

set ports [list]
for {set n 0} {$n < $channels} {incr n} {
  lappend ports [format "m_axi_%02d" $n]
}
lappend ports m_axi_host

ipx::associate_bus_interfaces -busif s_axi_control -clock ap_clk $core
foreach port $ports {
  ipx::associate_bus_interfaces -busif $port -clock ap_clk $core
}

# A level, which proto/layout/card.h tells how to clear. XRT reads from the image whether a kernel has one.
ipx::infer_bus_interface interrupt xilinx.com:signal:interrupt_rtl:1.0 $core
set sensitivity [ipx::add_bus_parameter SENSITIVITY [ipx::get_bus_interfaces interrupt -of_objects $core]]
set_property value LEVEL_HIGH $sensitivity

# v++ wants an argument for each memory port. No register stands behind these: the driver of the card writes the
# registers of proto/layout/card.h, which lie below them.
set block [ipx::get_address_blocks reg0 -of_objects [ipx::get_memory_maps s_axi_control -of_objects $core]]
set offset 0x1000
foreach port $ports {
  set register [ipx::add_register $port $block]
  set_property description "memory of $port" $register
  set_property address_offset [format "0x%03x" $offset] $register
  set_property size 64 $register
  set parameter [ipx::add_register_parameter ASSOCIATED_BUSIF $register]
  set_property value $port $parameter
  incr offset 8
}

ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity -kernel $core
ipx::save_core $core
package_xo -force -xo_path $xo_file -kernel_name mnemo_card -ctrl_protocol user_managed -ip_directory $work/ip
close_project
