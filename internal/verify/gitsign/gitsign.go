// Package gitsign verifies who signed a Git commit or tag, with OpenPGP or SSH, from
// the bytes of the object as Git stores it.
//
// What is verified is exactly what is used: the object is read by a strict grammar
// first, and one that different readers could take for different things is refused,
// also where its signature is right. A signature counts when it is the only one of
// the object, fills its place to the end, and was made by a key that was handed in
// and is neither expired nor revoked now. Everything else is an error; nothing is
// taken for verified because something is missing.
//
// No process is started and no key leaves memory. server hands Keys.Verify to the
// adapter that fetches from Git.
package gitsign

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
)

const (
	// sshEnding and pgpEnding are how the names of keys end. Another ending is taken
	// for OpenPGP, as Flux does.
	sshEnding = ".sshpub"
	pgpEnding = ".asc"
	// mostKeys is how many keys are tried for one signature.
	mostKeys = 1000
)

// Keys are the public keys that may sign. They do not change and can be used by
// several goroutines.
type Keys struct {
	pgp []*openpgp.Entity
	ssh []sshKey
	// unreadable are the entries without a usable key, with the reason.
	unreadable []string
}

// ReadKeys reads the public keys of a secret: *.sshpub are SSH keys in lines of an
// authorized_keys file, *.asc and everything else armored OpenPGP keys. An entry
// that cannot be read is left out, like in Flux, and named when a signature fits no
// key. It is an error when there is no key at all.
func ReadKeys(entries map[string][]byte) (*Keys, error) {
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names)
	k := &Keys{}
	for _, name := range names {
		if err := k.read(name, entries[name]); err != nil {
			k.unreadable = append(k.unreadable, fmt.Sprintf("%q: %v", name, err))
		}
		if len(k.pgp)+len(k.ssh) > mostKeys {
			return nil, fmt.Errorf("there are more than %d public keys, which is the most that is taken", mostKeys)
		}
	}
	if len(k.pgp)+len(k.ssh) > 0 {
		return k, nil
	}
	text := fmt.Sprintf("there is no public key; put OpenPGP keys under names that end in %q, SSH keys under names that end in %q", pgpEnding, sshEnding)
	if len(k.unreadable) > 0 {
		text += ": " + strings.Join(k.unreadable, "; ")
	}
	return nil, errors.New(text)
}

func (k *Keys) read(name string, text []byte) error {
	if strings.HasSuffix(name, sshEnding) {
		keys, err := readSSH(text)
		k.ssh = append(k.ssh, keys...)
		return err
	}
	keys, err := readPGP(text)
	k.pgp = append(k.pgp, keys...)
	return err
}

// Unsigned is the error of an object without a signature.
type Unsigned struct{ kind string }

// Error says what is not signed.
func (u *Unsigned) Error() string { return "the " + u.kind + " is not signed" }

// Unsigned tells that there is no signature, for those that do not know the type.
func (*Unsigned) Unsigned() bool { return true }

// Verify checks the signature of a commit or tag, given as Git stores it, without
// the header that Git names it by. The signer is the ID of an OpenPGP key or the
// fingerprint of an SSH key. The error is an Unsigned where there is no signature;
// its text never depends on when it is asked.
func (k *Keys) Verify(object []byte) (signer string, err error) {
	defer func() {
		// The readers below work on what an attacker made; a defect in them must not
		// count as verified, nor end the program.
		if reason := recover(); reason != nil {
			signer, err = "", errors.New("the signature cannot be read")
		}
	}()
	o, err := parse(object)
	if err != nil {
		return "", err
	}
	switch {
	case len(o.signature) == 0:
		return "", &Unsigned{o.kind}
	case bytes.HasPrefix(o.signature, []byte(pgpBegin)):
		if len(k.pgp) == 0 {
			return "", k.none("an OpenPGP", pgpEnding)
		}
		signer, err = k.verifyPGP(o)
	case bytes.HasPrefix(o.signature, []byte(sshBegin)):
		if len(k.ssh) == 0 {
			return "", k.none("an SSH", sshEnding)
		}
		signer, err = k.verifySSH(o)
	default:
		return "", errors.New("the signature is neither of OpenPGP nor of SSH; others are not supported")
	}
	if unknown := (*unknownSigner)(nil); errors.As(err, &unknown) {
		return "", k.hint(err)
	}
	return signer, err
}

// none says that there is no key of the kind that a signature needs.
func (k *Keys) none(kind, ending string) error {
	return k.hint(fmt.Errorf("it has %s signature, and there is no such key; put it under a name that ends in %q", kind, ending))
}

// hint adds the entries that could not be read: the key may be among them.
func (k *Keys) hint(err error) error {
	if len(k.unreadable) == 0 {
		return err
	}
	return fmt.Errorf("%w; these entries cannot be read: %s", err, strings.Join(k.unreadable, "; "))
}

// unknownSigner is the error of a signature by a key that is not among the Keys.
type unknownSigner struct{ key string }

// Error names the key.
func (u *unknownSigner) Error() string {
	return fmt.Sprintf("it is signed by key %s, which is none of the public keys", u.key)
}
