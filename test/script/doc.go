// Package script holds tests of the whole program: one archive for each
// behaviour, named after what is done and in which case. They are written to be
// read: the first line of an archive says why it is there.
package script
