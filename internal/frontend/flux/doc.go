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
package flux
