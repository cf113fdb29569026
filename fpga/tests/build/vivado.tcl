# Stands in for Vivado under tclsh: records every command that package_kernel.tcl gives it, one a line.
set names {create_project add_files set_property current_fileset update_compile_order close_project package_xo}
foreach name {package_project current_core associate_bus_interfaces get_address_blocks get_memory_maps add_register
              add_register_parameter infer_bus_interface get_bus_interfaces add_bus_parameter create_xgui_files update_checksums check_integrity save_core} {
  lappend names ipx::$name
}
namespace eval ipx {}
set record [open [lindex $argv 0] w]
foreach name $names {
  proc $name {args} [format {
    puts $::record [list %s {*}$args]
    return "<%s [lindex $args 0]>"
  } $name $name]
}
set script [lindex $argv 1]
set argv [lrange $argv 2 end]
set argc [llength $argv]
source $script
close $record
