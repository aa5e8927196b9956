package main

// Images made from scratch have no CA certificates: the fallback set is
// Mozilla's, and is used only if the system has none of its own.
import _ "golang.org/x/crypto/x509roots/fallback"
