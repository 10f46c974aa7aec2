# Everything from outside, found by find_package; nothing is downloaded or vendored. scripts/packages lists the names.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(ZIP REQUIRED IMPORTED_TARGET libzip)             # src/pickle alone
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)           # apps/cli alone
# src/hub alone
pkg_check_modules(CURL IMPORTED_TARGET "libcurl>=7.66")
pkg_check_modules(CRYPTO IMPORTED_TARGET libcrypto)
# apps/serve alone, which takes the place of parts of it that later versions have in another form.
pkg_check_modules(HTTPLIB IMPORTED_TARGET "cpp-httplib>=0.11" "cpp-httplib<0.15")
