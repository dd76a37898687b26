// Bench measures the operator against a real API server and against a bare
// client that writes the same objects to the same server.
//
// Every measurement has a control plane of its own, started from bin/localcluster
// and thrown away afterwards. Bare client, bare client with a dry-run before each
// write, and operator take turns, so that all of them see the same weather; what
// is compared are ratios within a round, never seconds of different days.
//
// The driver only watches and writes as a user would. Its clock is its own watch
// on the objects, never the operator's word; requests are counted in the API
// server's audit log by user agent; processor time and memory are read from the
// kernel. README.md says how each figure is taken.
package main
