package build

import (
	"context"
	"errors"
	"fmt"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Decryption is with what keys encrypted files and objects are opened.
type Decryption struct {
	// Keys is key material by the name of its entry, which says what it is.
	Keys map[string][]byte
	// From names where the keys are kept, for messages.
	From string
	// Account is as whom services that keep keys are asked where Keys has nothing for
	// them; the zero value for the operator itself. Whoever makes the Decrypter decides
	// whether anybody is asked so.
	Account Account
	// VaultLogins are the paths of logins by the addresses of the Vaults at which
	// Account may log in.
	VaultLogins map[string]string
	// VaultTrouble is why VaultLogins are not known, for messages; empty where they are.
	VaultTrouble string
}

// Account names a service account.
type Account struct{ Namespace, Name string }

// Decrypter reads key material.
type Decrypter interface {
	// Unlock fails where an entry is not the key that its name promises. Its
	// errors name the entry and never show what is in it.
	Unlock(decryption Decryption) (Keyring, error)
}

// Keyring opens what is encrypted, for one build. Its errors say what is missing
// and what to do about it, and hold neither keys nor plain text. One that another
// try may mend, such as of a service that decrypts, is an *Unavailable.
type Keyring interface {
	// File decrypts a file. Encrypted is false for one that is not encrypted.
	File(ctx context.Context, file EncryptedFile) (opened Opened, encrypted bool, err error)
	// Object decrypts an object, as JSON, that is encrypted itself or is a Secret
	// with encrypted files as its values. Encrypted is false for any other.
	Object(ctx context.Context, object []byte) (plain []byte, encrypted bool, err error)
}

// EncryptedFile is a file that may be encrypted.
type EncryptedFile struct {
	Content []byte
	// Name tells by its ending what form the file has: YAML, JSON, INI, variables
	// of an environment, or none.
	Name string
	// Environment marks a file of variables, whatever its name.
	Environment bool
}

// Opened is what was in an encrypted file.
type Opened struct {
	Content []byte
	// Values are the parts of Content that were encrypted.
	Values []string
}

// Unavailable is a failure to decrypt that another try may mend.
type Unavailable struct{ Err error }

// Error is the text of Err.
func (u *Unavailable) Error() string { return u.Err.Error() }

// Unwrap gives Err.
func (u *Unavailable) Unwrap() error { return u.Err }

// unlock reads the keys that a spec asks for; nil where it asks for none.
func (b *Builder) unlock(spec Spec) (Keyring, error) {
	if spec.Decryption == nil {
		return nil, nil
	}
	if b.steps.Decrypter == nil {
		return nil, &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Internal, Reason: ReasonBuildFailed, Cause: errors.New("this builder cannot decrypt")}
	}
	keys, err := b.steps.Decrypter.Unlock(*spec.Decryption)
	if err != nil {
		return nil, fmt.Errorf("read decryption keys: %w", err)
	}
	return keys, nil
}

// CannotDecrypt is the failure to open a file, or an object where ref is not the
// zero value.
func CannotDecrypt(origin gitops.Origin, ref gitops.ObjectRef, err error) error {
	kind := gitops.Invalid
	var away *Unavailable
	if errors.As(err, &away) {
		kind = gitops.Transient
	}
	cause := fmt.Errorf("cannot be decrypted: %w", err)
	if ref == (gitops.ObjectRef{}) {
		cause = fmt.Errorf("%s %w", origin, cause)
	}
	return &gitops.Error{Stage: gitops.StageBuild, Kind: kind, Reason: ReasonBuildFailed, Ref: ref, Origin: origin, Cause: cause}
}
