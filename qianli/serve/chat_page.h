// The page at /: one file without network, as the program carries it.
#pragma once

namespace qianli::serve {

extern const char* const kChatPage;
extern const char* const kChatPagePolicy;  // Content-Security-Policy

}  // namespace qianli::serve
