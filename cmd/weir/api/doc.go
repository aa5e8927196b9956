// Package api has the types of the admin API's requests and answers, and a
// client, for the node, the commands and the tests; openapi.yaml describes the
// API for others.
//
// It starts no goroutines.
package api
