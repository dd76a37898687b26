// Package conformance holds one script for each field of a Kustomization, and for each
// annotation that the operator knows, in testdata: these manifests in, this cluster
// out, against a real API server and a real Git server.
//
// A script is a txtar archive. Its comment says what holds. Its files are grouped in
// steps, 1/, 2/ and so on, which are done in order:
//
//	N/repo/PATH           a file of the repository; an empty one is removed
//	N/objects.yaml        objects that the test applies, as field manager "test"
//	N/kubectl.yaml        objects that the test applies, as field manager "kubectl"
//	N/delete.yaml         objects that the test deletes
//	N/kustomization.yaml  Kustomizations: what is created, or merged into what is there
//	N/want.yaml           objects that have to come to be in the cluster
//	N/same.yaml           objects that have to be there with the uid of the last step
//	N/absent.yaml         objects that have to be gone
//	N/reconcile           names of Kustomizations that are asked to reconcile, and have
//	                      to, before the step's wants are looked at
//
// A Kustomization that says nothing else has the name app, follows the repository,
// builds ./app for the namespace of the script with prune, looks again after an hour
// and tries again after a second. It is in that namespace unless it names another one.
// @NS@ stands for the namespace, @HEAD@ for the revision of the repository, @KUBECONFIG@
// for a kubeconfig of the cluster, in base64, @SERVER@ for the address of its API server
// and @CA@ for the certificate of that, with \n for its ends of lines. The Secret age has
// the key for files NAME.sops.yaml, whose data is encrypted before they are committed as
// NAME.yaml.
//
// A want is a part of an object: a map has to have what is named, a list of maps with a
// type or a name has to have the items that are named, other lists are compared as a
// whole. A text that begins with ~ has to be contained, and null has to be absent. A want
// without a name is one of any object of the kind, such as an event. The wants of a step
// are waited for in their order, and before what has to be the same or gone is looked at.
// What is wanted in the last step has to hold still after every Kustomization that is not
// suspended has been asked to reconcile.
//
// TestEveryField fails where a field of the schema is in no script, TestEveryAnnotation
// where an annotation is.
package conformance
