# Debian packages: `cpack` in a build folder leaves mnemo, mnemo-client, mnemo-monitoring and mnemo-dev there. Their control files are
# in deploy/debian.
if(NOT MNEMO_GRPC OR NOT MNEMO_SANITIZER STREQUAL "")
  return()
endif()

set(debian ${CMAKE_SOURCE_DIR}/deploy/debian)
set(packages ${CMAKE_BINARY_DIR}/packages)
set(MNEMO_MAINTAINER_ADDRESS maintainers@mnemo.example)
# Programs alone are needed, not the tests; CPACK_INSTALL_COMMANDS builds them first.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)
add_custom_target(package_files)

# A file that Debian wants compressed: the same bytes at each build.
function(mnemo_compressed source out)
  add_custom_command(OUTPUT ${out} COMMAND gzip -9nc ${source} > ${out} DEPENDS ${source})
  string(MAKE_C_IDENTIFIER "compress_${out}" name)
  add_custom_target(${name} DEPENDS ${out})
  add_dependencies(package_files ${name})
endfunction()

# The daemon and its units.
set(MNEMO_ENABLED_UNITS "mnemo.target mnemod.service")
set(programs mnemod mnemo-worker mnemo-memory)
file(GLOB units CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/deploy/systemd/*.service ${CMAKE_SOURCE_DIR}/deploy/systemd/*.socket
  ${CMAKE_SOURCE_DIR}/deploy/systemd/*.target ${CMAKE_SOURCE_DIR}/deploy/systemd/*.slice)
if(TARGET mnemo-energy)
  list(APPEND programs mnemo-energy)
  string(APPEND MNEMO_ENABLED_UNITS " mnemo-energy.service")
else()
  list(FILTER units EXCLUDE REGEX "mnemo-energy.service$")
endif()
install(TARGETS ${programs} RUNTIME DESTINATION bin COMPONENT mnemo)
install(FILES ${units} DESTINATION /lib/systemd/system COMPONENT mnemo)
install(FILES deploy/systemd/mnemo.sysusers DESTINATION lib/sysusers.d RENAME mnemo.conf COMPONENT mnemo)
install(FILES deploy/systemd/mnemo.tmpfiles DESTINATION lib/tmpfiles.d RENAME mnemo.conf COMPONENT mnemo)
install(FILES config/node.yaml DESTINATION /etc/mnemo COMPONENT mnemo)
install(FILES ${debian}/mnemo.logrotate DESTINATION /etc/logrotate.d RENAME mnemo COMPONENT mnemo)
install(FILES config/local.yaml DESTINATION share/doc/mnemo/examples COMPONENT mnemo)
file(GLOB documents CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/docs/*.md)
install(FILES ${documents} README.md DESTINATION share/doc/mnemo COMPONENT mnemo)
install(FILES ${debian}/mnemo.lintian-overrides DESTINATION share/lintian/overrides RENAME mnemo COMPONENT mnemo)
foreach(script postinst prerm postrm)
  configure_file(${debian}/mnemo.${script}.in ${packages}/mnemo/${script} @ONLY FILE_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
endforeach()
file(WRITE ${packages}/mnemo/conffiles "/etc/mnemo/node.yaml\n/etc/logrotate.d/mnemo\n")

# The client and its Python package, whose stubs fit Debian's protobuf.
install(TARGETS mnemo RUNTIME DESTINATION bin COMPONENT client)
set(stubs ${packages}/python)
set(stub_files)
foreach(stem generation admin)
  list(APPEND stub_files ${stubs}/mnemo/v1/${stem}_pb2.py ${stubs}/mnemo/v1/${stem}_pb2_grpc.py)
endforeach()
find_program(MNEMO_GRPC_PYTHON_PLUGIN grpc_python_plugin REQUIRED)
file(MAKE_DIRECTORY ${stubs})
add_custom_command(OUTPUT ${stub_files}
  COMMAND protobuf::protoc -I ${CMAKE_SOURCE_DIR}/proto --python_out=${stubs} --grpc_python_out=${stubs}
          --plugin=protoc-gen-grpc_python=${MNEMO_GRPC_PYTHON_PLUGIN} mnemo/v1/generation.proto mnemo/v1/admin.proto
  DEPENDS ${CMAKE_SOURCE_DIR}/proto/mnemo/v1/generation.proto ${CMAKE_SOURCE_DIR}/proto/mnemo/v1/admin.proto)
add_custom_target(package_stubs DEPENDS ${stub_files})
install(DIRECTORY client/python/mnemo DESTINATION lib/python3/dist-packages COMPONENT client FILES_MATCHING PATTERN "*.py"
  PATTERN "py.typed" PATTERN "__pycache__" EXCLUDE PATTERN "*_pb2*" EXCLUDE)
install(FILES ${stub_files} DESTINATION lib/python3/dist-packages/mnemo/v1 COMPONENT client)

# Man pages, made from what the programs and the schema tell.
set(MNEMO_RELEASE_DATE 2026-11-28)
set(man ${packages}/man)
set(daemon_pages ${man}/mnemo.yaml.5.gz ${man}/mnemo-metrics.7.gz)
set(page_sources $<TARGET_FILE:mnemo>:1)
foreach(program IN LISTS programs)
  list(APPEND page_sources $<TARGET_FILE:${program}>:8)
  list(APPEND daemon_pages ${man}/${program}.8.gz)
endforeach()
add_custom_command(OUTPUT ${man}/mnemo.1.gz ${daemon_pages}
  COMMAND ${MNEMO_PYTHON} ${debian}/make_man_pages.py ${man} ${MNEMO_RELEASE_DATE} $<TARGET_FILE:print_schema> $<TARGET_FILE:print_metrics>
          ${page_sources}
  DEPENDS ${debian}/make_man_pages.py print_schema print_metrics mnemo ${programs})
add_custom_target(man_pages DEPENDS ${man}/mnemo.1.gz ${daemon_pages})
install(FILES ${man}/mnemo.1.gz DESTINATION share/man/man1 COMPONENT client)
foreach(page IN LISTS daemon_pages)
  string(REGEX REPLACE ".*\\.([0-9])\\.gz$" "\\1" section ${page})
  install(FILES ${page} DESTINATION share/man/man${section} COMPONENT mnemo)
endforeach()

# Completions, printed by the client.
set(completions ${packages}/completions)
file(MAKE_DIRECTORY ${completions})
foreach(shell bash zsh fish)
  add_custom_command(OUTPUT ${completions}/${shell} COMMAND mnemo completion ${shell} > ${completions}/${shell} DEPENDS mnemo)
endforeach()
add_custom_target(completions DEPENDS ${completions}/bash ${completions}/zsh ${completions}/fish)
install(FILES ${completions}/bash DESTINATION share/bash-completion/completions RENAME mnemo COMPONENT client)
install(FILES ${completions}/zsh DESTINATION share/zsh/vendor-completions RENAME _mnemo COMPONENT client)
install(FILES ${completions}/fish DESTINATION share/fish/vendor_completions.d RENAME mnemo.fish COMPONENT client)

# Files for Prometheus and Grafana, as they stand.
foreach(folder prometheus grafana)
  if(IS_DIRECTORY ${CMAKE_SOURCE_DIR}/deploy/${folder})
    install(DIRECTORY deploy/${folder} DESTINATION share/mnemo COMPONENT monitoring)
  endif()
endforeach()

# The C++ client for other programs.
set(libraries lib/${CMAKE_LIBRARY_ARCHITECTURE})
install(TARGETS mnemo_client mnemo_proto mnemo_proto_messages mnemo_base ARCHIVE DESTINATION ${libraries} COMPONENT dev)
install(FILES client/client.h DESTINATION include/mnemo/client COMPONENT dev)
install(DIRECTORY devices/base/ DESTINATION include/mnemo/devices/base COMPONENT dev FILES_MATCHING PATTERN "*.h")
install(DIRECTORY ${CMAKE_BINARY_DIR}/gen/mnemo_proto/ DESTINATION include/mnemo COMPONENT dev FILES_MATCHING PATTERN "*.h")
install(DIRECTORY proto/mnemo/v1 DESTINATION share/mnemo/proto/mnemo COMPONENT dev)
configure_file(${debian}/mnemo-client.pc.in ${packages}/mnemo-client.pc @ONLY)
install(FILES ${packages}/mnemo-client.pc DESTINATION ${libraries}/pkgconfig COMPONENT dev)

set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
configure_file(${debian}/changelog.in ${packages}/changelog @ONLY)
mnemo_compressed(${packages}/changelog ${packages}/changelog.gz)
foreach(component mnemo client monitoring dev)
  set(name mnemo-${component})
  if(component STREQUAL "mnemo")
    set(name mnemo)
  endif()
  install(FILES ${debian}/copyright ${packages}/changelog.gz DESTINATION share/doc/${name} COMPONENT ${component})
endforeach()
add_dependencies(package_files package_stubs man_pages completions ${programs} mnemo mnemo_client mnemo_proto mnemo_base)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME mnemo)
set(CPACK_PACKAGE_CONTACT "mnemo maintainers <${MNEMO_MAINTAINER_ADDRESS}>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL mnemo client monitoring dev)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_INSTALL_COMMANDS "${CMAKE_COMMAND} --build ${CMAKE_BINARY_DIR} --target package_files")
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)

set(CPACK_DEBIAN_MNEMO_PACKAGE_NAME mnemo)
set(CPACK_DEBIAN_MNEMO_PACKAGE_SECTION net)
set(CPACK_DEBIAN_MNEMO_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_MNEMO_PACKAGE_DEPENDS "init-system-helpers (>= 1.54~), python3, python3-jinja2, systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles")
set(CPACK_DEBIAN_MNEMO_PACKAGE_RECOMMENDS "mnemo-client, logrotate")
set(CPACK_DEBIAN_MNEMO_PACKAGE_SUGGESTS mnemo-monitoring)
set(CPACK_DEBIAN_MNEMO_PACKAGE_CONTROL_EXTRA
  "${packages}/mnemo/postinst;${packages}/mnemo/prerm;${packages}/mnemo/postrm;${packages}/mnemo/conffiles")
set(CPACK_COMPONENT_MNEMO_DESCRIPTION "serving daemon for language models
mnemod serves language models in GGUF over gRPC. It starts and supervises
its workers and memory services, which attend to long contexts sparsely.
.
This package has the daemon, its units for systemd and its documents.")

set(CPACK_DEBIAN_CLIENT_PACKAGE_NAME mnemo-client)
set(CPACK_DEBIAN_CLIENT_PACKAGE_SECTION net)
set(CPACK_DEBIAN_CLIENT_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_CLIENT_PACKAGE_DEPENDS "python3:any")
set(CPACK_DEBIAN_CLIENT_PACKAGE_RECOMMENDS "python3-grpcio, python3-protobuf, python3-typing-extensions")
set(CPACK_DEBIAN_CLIENT_PACKAGE_CONTROL_EXTRA "${debian}/mnemo-client/postinst;${debian}/mnemo-client/prerm")
set(CPACK_COMPONENT_CLIENT_DESCRIPTION "client of the mnemo daemon
The program mnemo generates text, shows the state of a daemon and measures
it under load.
.
This package also has the Python package mnemo.")

set(CPACK_DEBIAN_MONITORING_PACKAGE_NAME mnemo-monitoring)
set(CPACK_DEBIAN_MONITORING_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_MONITORING_PACKAGE_SECTION net)
set(CPACK_DEBIAN_MONITORING_PACKAGE_SUGGESTS "prometheus, prometheus-alertmanager")
set(CPACK_COMPONENT_MONITORING_DESCRIPTION "rules, alerts and dashboards for the mnemo daemon
Scrape examples, recording rules, alerts and console pages for Prometheus,
and dashboards for Grafana, on latency, memory and energy of mnemo nodes.")

set(CPACK_DEBIAN_DEV_PACKAGE_NAME mnemo-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libabsl-dev, libfmt-dev, libgrpc++-dev, libprotobuf-dev, libxxhash-dev")
set(CPACK_COMPONENT_DEV_DESCRIPTION "client library of the mnemo daemon, for C++
The protocol's .proto files, and a static C++20 library with which programs
call a mnemo daemon. pkg-config knows it as mnemo-client.")
include(CPack)
