// Package logs makes the log of a program: without secrets, with the traces that
// lines belong to, and with what libraries log to the globals of the process.
package logs
