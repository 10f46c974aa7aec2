# upg_embed(target file symbol): compiles `file` into the target as `const unsigned char upg::<symbol>[]` and `const unsigned
# long upg::<symbol>_size`.
function(upg_embed target file symbol)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(READ ${file} bytes HEX)
  string(LENGTH "${bytes}" digits)
  math(EXPR size "${digits} / 2")
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  set(source ${PROJECT_BINARY_DIR}/${symbol}.cc)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT
"namespace upg {
extern const unsigned char @symbol@[];
extern const unsigned long @symbol@_size;
const unsigned char @symbol@[] = {@bytes@};
const unsigned long @symbol@_size = @size@;
}
")
  target_sources(${target} PRIVATE ${source})
endfunction()
