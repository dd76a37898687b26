// Package try runs the operator on a Git repository with no cluster at hand: it
// starts the local control plane as a child process, serves the repository from
// a Git server of its own, creates what `flux bootstrap` would, runs the operator
// in this process, and shows what becomes of it all.
//
// It reads a person's repository and never writes to it: commits, also those of
// uncommitted files, are served from a scratch repository that borrows the
// person's objects. Everything else lives in one folder that goes with the
// session. Only the command line uses it.
package try
