#include "serve/access.h"

#include <gtest/gtest.h>

#include <map>

namespace upg::serve {
namespace {

HttpRequest with(std::map<std::string, std::string> headers) {
  HttpRequest request;
  request.header = [headers](const char* name) {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
  };
  return request;
}

TEST(Access, KeysAreComparedWhole) {
  EXPECT_TRUE(same_key("secret", "secret"));
  for (const char* given : {"", "s", "secre", "secrets", "Secret", "secretsecret"})
    EXPECT_FALSE(same_key("secret", given));
}

TEST(Access, HostsAreCutOutOfAuthorities) {
  EXPECT_EQ(host_of("localhost:80"), "localhost");
  EXPECT_EQ(host_of("[::1]:80"), "::1");
  EXPECT_EQ(host_of("[::1"), "[::1");
  EXPECT_EQ(host_of(""), "");
}

TEST(Access, LoopbackIsKnownByItsNames) {
  for (const char* host : {"127.0.0.1", "127.9.9.9", "localhost", "::1"}) EXPECT_TRUE(is_loopback(host));
  for (const char* host : {"", "0.0.0.0", "127.0.0.1.evil.example", "localhost.evil.example"})
    EXPECT_FALSE(is_loopback(host));
}

TEST(Access, AServerOnLoopbackAnswersToItsOwnNamesAlone) {
  const Access access("127.0.0.1", {}, "");
  EXPECT_NO_THROW(access.check_host(with({{"Host", "LOCALHOST:8080"}})));
  EXPECT_THROW(access.check_host(with({{"Host", "evil.example"}})), RequestError);
  EXPECT_THROW(access.check_host(with({})), RequestError);
  const Access open("0.0.0.0", {}, "");
  EXPECT_NO_THROW(open.check_host(with({{"Host", "any.example"}})));
}

TEST(Access, PagesOfOtherOriginsNeedLeave) {
  const HttpRequest page = with({{"Host", "localhost"}, {"Origin", "https://app.example"}});
  EXPECT_THROW(Access("127.0.0.1", {}, "").check_host(page), RequestError);
  EXPECT_THROW(Access("127.0.0.1", {}, "https://other.example").check_host(page), RequestError);
  EXPECT_NO_THROW(Access("127.0.0.1", {}, "https://app.example").check_host(page));
  EXPECT_NO_THROW(Access("127.0.0.1", {}, "*").check_host(page));
}

TEST(Access, OneOfTheKeysIsEnough) {
  const Access access("127.0.0.1", {"one", "two"}, "");
  EXPECT_NO_THROW(access.check_key(with({{"Authorization", "Bearer two"}})));
  EXPECT_NO_THROW(access.check_key(with({{"x-api-key", "one"}})));
  EXPECT_NO_THROW(access.check_key(with({{"Authorization", "Basic bWU6dHdv"}})));  // me:two
  EXPECT_THROW(access.check_key(with({{"x-api-key", "three"}})), RequestError);
  for (const char* basic : {"Basic ", "Basic bWU", "Basic bWU6", "Basic bWU6dGhyZWU=", "Basic !"})
    EXPECT_THROW(access.check_key(with({{"Authorization", basic}})), RequestError) << basic;
  EXPECT_THROW(access.check_key(with({})), RequestError);
}

}  // namespace
}  // namespace upg::serve
