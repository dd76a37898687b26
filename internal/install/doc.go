// Package install puts the operator into a cluster and takes it out again.
//
// What is installed is a value, a list of objects that [Objects] makes from the
// manifests in the folder install/ without asking any cluster: plumb install
// --export prints it, and kubectl apply -k install applies the same. An
// [Installer] applies it object by object and waits until the operator works, or
// removes it.
//
// What Flux may have made already (the namespace, the Service of its artifacts,
// definitions of a newer release) is left as it is. What is removed bears the label
// of this program, and no removal has managed objects pruned: custom resources are
// suspended and let go of before their definitions are taken away. The commands
// plumb install and plumb uninstall use it.
package install
