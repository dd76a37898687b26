package gitsign

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// readPGP reads armored keys, of which there may be several one after the other.
func readPGP(text []byte) ([]*openpgp.Entity, error) {
	begin := []byte("-----BEGIN PGP")
	var keys []*openpgp.Entity
	for rest := text; ; {
		_, after, ok := bytes.Cut(rest, begin)
		if !ok {
			break
		}
		block, _, _ := bytes.Cut(after, begin)
		rest = after[len(block):]
		read, err := openpgp.ReadArmoredKeyRing(io.MultiReader(bytes.NewReader(begin), bytes.NewReader(block)))
		if err != nil {
			return nil, errors.New("it is no armored OpenPGP key")
		}
		keys = append(keys, read...)
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no armored OpenPGP key")
	}
	return keys, nil
}

// verifyPGP checks an OpenPGP signature. The signer is the ID of the primary key, as
// Flux shows it.
func (k *Keys) verifyPGP(o object) (string, error) {
	raw, issuer, err := readSignature(o.signature)
	if err != nil {
		return "", err
	}
	best := error(&unknownSigner{fmt.Sprintf("%016X", issuer)})
	for _, entity := range k.pgp {
		ring := openpgp.EntityList{entity}
		if len(ring.KeysById(issuer)) == 0 {
			continue
		}
		_, err := openpgp.CheckDetachedSignature(ring, bytes.NewReader(o.payload), bytes.NewReader(raw), nil)
		if err == nil {
			return entity.PrimaryKey.KeyIdString(), nil
		}
		best = explainPGP(entity, err)
	}
	return "", best
}

// readSignature takes one signature out of its armor, and nothing else: a text that
// holds more would mean different things to different readers.
func readSignature(armored []byte) (raw []byte, issuer uint64, err error) {
	block, err := armor.Decode(bytes.NewReader(armored))
	if err == nil {
		// What is outside is bounded already.
		raw, err = io.ReadAll(block.Body)
	}
	if err != nil {
		return nil, 0, errors.New("the OpenPGP signature cannot be read; its armor is broken")
	}
	in := bytes.NewReader(raw)
	read, err := packet.Read(in)
	if err != nil {
		return nil, 0, errors.New("the OpenPGP signature cannot be read, or is of a kind that is not supported")
	}
	signature, ok := read.(*packet.Signature)
	switch {
	case !ok:
		return nil, 0, errors.New("the OpenPGP signature is something else")
	case in.Len() > 0:
		return nil, 0, errors.New("there is more than one OpenPGP signature")
	case signature.SigType != packet.SigTypeBinary:
		// The others are made over a text with other line ends.
		return nil, 0, errors.New("the OpenPGP signature is not over the bytes of the object")
	case signature.IssuerKeyId == nil:
		return nil, 0, errors.New("the OpenPGP signature does not name its key")
	}
	return raw, *signature.IssuerKeyId, nil
}

// explainPGP puts the library's errors into words.
func explainPGP(entity *openpgp.Entity, err error) error {
	key := entity.PrimaryKey.KeyIdString()
	switch {
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return fmt.Errorf("key %s, which signed it, has expired", key)
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return fmt.Errorf("key %s, which signed it, is revoked", key)
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return fmt.Errorf("the signature of key %s has expired", key)
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return fmt.Errorf("key %s may not sign", key)
	default:
		return fmt.Errorf("the signature of key %s does not fit the object", key)
	}
}
