// Package pb holds the messages that nodes and operators sign, and the types
// that other protocols share with them, generated from capacity.proto. Package
// signed converts them to the types of package capacity and checks their bounds.
package pb
