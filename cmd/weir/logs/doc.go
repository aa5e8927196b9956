// Package logs makes the log of a program: without secrets, with trace IDs, and
// with the lines that libraries log to the globals of the process.
package logs
