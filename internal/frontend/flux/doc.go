// Package flux is the front end for Flux's custom resources: it translates a
// GitRepository or Kustomization into what the stages below understand, and
// what they report into conditions, inventory, history and events as clients
// of Flux expect them.
//
// It is the only package of the operator that knows Flux's API groups,
// annotations and condition types. A reconciler here is short: load, translate,
// run, report. Every decision about objects in a cluster is made below it.
//
// A revision of a source goes through these states, and may be overtaken in each: it is
// fetched; published to the consumers in the process (sources); packed into a file for others
// (artifact.Store); told, that is, named by the status. What holds throughout:
//
//   - What the status names is kept and served until the status names something else. It is
//     taken off the status only where its file is lost.
//   - What was published and packed is told, whatever happens meanwhile: a failure, or a
//     suspension. What was published and could not be packed is said to be so.
//   - What consumers are given after a start is never older than what they had before it: what
//     was fetched last, also where it was not told. The exception is an object whose
//     declaration was changed, or that was suspended, before a revision was told: what was
//     fetched may be that of another declaration, so they get what the status names.
//   - Nothing is waited for without an end: a file that is packed, or a snapshot that is
//     missing, keeps a status silent for a while only (longestUntold, longestQuiet).
package flux
