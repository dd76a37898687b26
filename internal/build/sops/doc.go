// Package sops opens what SOPS encrypted, with keys that are handed in.
//
// A Decrypter makes a Keyring of the entries of a Secret, which say by their names
// what they are. Documents are read and printed here, as SOPS does; its own code
// decrypts their values and talks to services that keep keys. It asks for data keys
// here, and never looks for keys by itself: not in the environment, in home folders or
// through programs, as its command does. Where no entry is there for a service, whoever
// makes a Decrypter can have it log in there; a kind of key for which there is neither is
// refused before SOPS sees it. OpenPGP is done here, in memory.
//
// Keys and plain text are in memory only. An error says what is encrypted for whom
// and what is missing, and quotes neither keys nor content. What a service answers is
// reduced to its code, so that the text is the same each time.
//
// The tests let Vault, AWS, Azure and Google answer through stand-ins that speak their
// protocols; none of the real services is asked.
//
// The composition root hands a Decrypter to package build.
package sops
