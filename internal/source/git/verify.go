package git

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// VerifyMode says what must be signed. Its zero value is nothing.
type VerifyMode string

// The modes, in the words of Flux.
const (
	// VerifyHEAD is the commit.
	VerifyHEAD VerifyMode = "HEAD"
	// VerifyTag is the annotated tag that the ref names.
	VerifyTag VerifyMode = "Tag"
	// VerifyTagAndHEAD is the tag and the commit that it stands for.
	VerifyTagAndHEAD VerifyMode = "TagAndHEAD"
)

// Verify is what must be signed before a revision is shown. Its zero value asks for
// nothing.
type Verify struct {
	Mode VerifyMode
	// Check checks a commit or tag, given as Git stores it, and names its signer. An
	// error with a method "Unsigned() bool" that is true says that it has no signature.
	// It must answer the same each time while Settings are the same.
	Check func(object []byte) (signer string, err error)
	// Settings name what Check stands for, such as a digest of its keys: a revision is
	// verified again when they change.
	Settings string
}

// Verified says who signed an object of a revision.
type Verified struct {
	// Object is "tag" or "commit".
	Object string `json:"object"`
	// Name is a tag's name, then an @, and for both the hash of the object.
	Name string `json:"name"`
	// Signer is what Check named.
	Signer string `json:"signer"`
}

// tags tells whether the tag must be signed.
func (v Verify) tags() bool { return v.Mode == VerifyTag || v.Mode == VerifyTagAndHEAD }

// commits tells whether the commit must be signed.
func (v Verify) commits() bool { return v.Mode == VerifyHEAD || v.Mode == VerifyTagAndHEAD }

// key tells the tips of a ref apart that are verified in other ways.
func (v Verify) key() string {
	if v.Mode == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(v.Settings))
	return fmt.Sprintf(" verified %s %s", v.Mode, hex.EncodeToString(sum[:12]))
}

// check refuses what can never be verified.
func (v Verify) check(ref Ref) error {
	if v.Mode == "" {
		return nil
	}
	switch {
	case !v.tags() && !v.commits():
		return refusal(gitops.Stalled, ReasonMode, fmt.Errorf("verify.mode %q is not supported; use %s, %s or %s", v.Mode, VerifyHEAD, VerifyTag, VerifyTagAndHEAD))
	case v.tags() && !ref.namesTag():
		return refusal(gitops.Stalled, ReasonMode, fmt.Errorf("verify.mode %s needs a tag, and the ref is none; follow one by ref.tag, ref.semver or ref.name, or use %s", v.Mode, VerifyHEAD))
	case v.Check == nil:
		return refusal(gitops.Denied, ReasonVerification, errors.New("there are no public keys to verify with"))
	}
	return nil
}

func refusal(kind gitops.ErrorKind, reason string, cause error) error {
	return &gitops.Error{Stage: gitops.StageFetch, Kind: kind, Reason: reason, Cause: cause}
}

const tagPrefix = "refs/tags/"

// namesTag tells whether the ref is a tag, whatever it turns out to be.
func (r Ref) namesTag() bool {
	return r.Commit == "" && strings.HasPrefix(r.prefix(), tagPrefix)
}

// verify checks the signatures that a request wants, of the objects that are shown
// then and of no others: a ref that moves meanwhile changes nothing.
func (o *objects) verify(v Verify, found choice, commit pack.ID) ([]Verified, error) {
	var all []Verified
	if v.tags() {
		name := strings.TrimPrefix(found.name, tagPrefix)
		tag, err := o.set.Object(found.want)
		if err != nil {
			return nil, o.fail(err)
		}
		if tag.Kind != pack.Tag {
			return nil, refusal(gitops.Denied, ReasonObject, fmt.Errorf("tag %q is not signed; it is no annotated tag", name))
		}
		signer, err := v.Check(tag.Data)
		if unsigned := (interface{ Unsigned() bool })(nil); errors.As(err, &unsigned) && unsigned.Unsigned() {
			return nil, refusal(gitops.Denied, ReasonObject, fmt.Errorf("tag %q is not signed", name))
		}
		if err == nil && tagName(tag.Data) != name {
			// Whoever may push could else show an old version under a new name.
			err = fmt.Errorf("the signed tag is called %s", quoted(tagName(tag.Data)))
		}
		if err != nil {
			return nil, refusal(gitops.Denied, ReasonTag, fmt.Errorf("verify tag %q: %w", name, err))
		}
		all = append(all, Verified{Object: "tag", Name: name + "@" + found.want.String(), Signer: signer})
	}
	if v.commits() {
		object, err := o.object(commit, pack.Commit)
		if err != nil {
			return nil, err
		}
		signer, err := v.Check(object)
		if err != nil {
			return nil, refusal(gitops.Denied, ReasonCommit, fmt.Errorf("verify commit %s: %w", commit, err))
		}
		all = append(all, Verified{Object: "commit", Name: commit.String(), Signer: signer})
	}
	return all, nil
}

// refused is a revision that was not taken, so that a poll that finds it again does
// not fetch it again.
type refused struct {
	want string
	err  error
	at   time.Time
}

// refusedFor is how long a refusal is believed. What is wrong with a signature may be
// nothing but the clock, and what took too long to unpack may have met a busy machine.
const refusedFor = 10 * time.Minute

// refuse remembers a revision that was not taken because of its signature, or because it
// passes a limit: finding that out may take all there is. Other failures are forgotten.
func (r *remote) refuse(key, want string, err error) {
	var e *gitops.Error
	signed := errors.As(err, &e) && slices.Contains([]string{ReasonObject, ReasonTag, ReasonCommit}, e.Reason)
	if !signed && !errors.Is(err, pack.ErrTooLarge) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusals[key] = refused{want: want, err: err, at: r.store.options.Now()}
}

// refusal is why a revision was not taken before; nil where it is to be looked at.
func (r *remote) refusal(key, want string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.refusals[key]; known.want == want && r.store.options.Now().Sub(known.at) < refusedFor {
		return known.err
	}
	delete(r.refusals, key)
	return nil
}
