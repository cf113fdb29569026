# mnemo_embed(OUTPUT.cc NAMESPACE SYMBOL FILE...): writes a source with
#   extern const std::span<const std::pair<std::string_view, std::string_view>> SYMBOL;
# the name of each file, without folder and extension, and its text. A program then needs no file at run time.
function(mnemo_embed output namespace symbol)
  set(entries "")
  foreach(file IN LISTS ARGN)
    get_filename_component(name ${file} NAME_WE)
    file(READ ${file} text)
    string(APPEND entries "    {\"${name}\", R\"EMBEDDED(${text})EMBEDDED\"},\n")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  endforeach()
  string(CONCAT source
    "// Made by cmake/MnemoEmbed.cmake.\n#include <span>\n#include <string_view>\n#include <utility>\n\n"
    "namespace ${namespace} {\nnamespace {\nconstexpr std::pair<std::string_view, std::string_view> kEntries[] = {\n"
    "${entries}};\n}  // namespace\n"
    "extern const std::span<const std::pair<std::string_view, std::string_view>> ${symbol};\n"
    "const std::span<const std::pair<std::string_view, std::string_view>> ${symbol} = kEntries;\n}  // namespace ${namespace}\n")
  file(CONFIGURE OUTPUT ${output} CONTENT "@source@" @ONLY)
endfunction()
