# Everything from outside, found by find_package; nothing is downloaded or vendored. scripts/packages lists the names.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)           # apps/cli alone
pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)    # apps/serve alone
