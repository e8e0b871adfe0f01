"""Writing synthetic films as DICOM (Digital X-Ray Image Storage, PS3.3 A.26)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from kneeoa_mm.atomic_files import atomic_path
from kneeoa_mm.records import Photometric
from kneeoa_mm.synthetic.film_geometry import Map

BITS_STORED = 12
_WHITE = 2**BITS_STORED - 1


def write_radiograph(
    path: Path,
    brightness: Map,
    *,
    subject_id: str,
    visit: str,
    seed: int,
    pixel_spacing_mm: float,
    photometric: Photometric,
    is_calibrated: bool,
) -> None:
    """Write one bilateral film; the same arguments give the same bytes.

    Args:
        path: The file.
        brightness: Film brightness from 0 (black) to 1 (white), (rows, columns).
        subject_id: Patient ID (0010,0020).
        visit: Clinical Trial Time Point ID (0012,0050), such as ``V00``.
        seed: Seed of the cohort; it goes into the unique identifiers.
        pixel_spacing_mm: True size of a pixel; the synthetic projection does not magnify.
        photometric: MONOCHROME1 is stored inverted.
        is_calibrated: State Pixel Spacing (0028,0030) beside Imager Pixel Spacing (0018,1164).
    """
    dataset = _header(subject_id, visit, seed)
    spacing = [f"{pixel_spacing_mm:.6g}"] * 2
    dataset.ImagerPixelSpacing = spacing
    if is_calibrated:
        dataset.PixelSpacing = spacing
        dataset.PixelSpacingCalibrationType = "GEOMETRY"
        dataset.PixelSpacingCalibrationDescription = "Synthetic film without magnification"
    stored = np.rint(np.clip(brightness, 0.0, 1.0) * _WHITE).astype("<u2")
    if photometric is Photometric.MONOCHROME1:
        stored = _WHITE - stored
    dataset.PhotometricInterpretation = str(photometric)
    is_inverse = photometric is Photometric.MONOCHROME1
    dataset.PresentationLUTShape = "INVERSE" if is_inverse else "IDENTITY"
    # bone lets less of the beam through: -1 where that is stored as higher values (PS3.3 C.8.11.3)
    dataset.PixelIntensityRelationshipSign = 1 if is_inverse else -1
    dataset.Rows, dataset.Columns = stored.shape
    dataset.PixelData = stored.tobytes()
    with atomic_path(path) as temporary:
        dcmwrite(temporary, dataset, enforce_file_format=True)


def _header(subject_id: str, visit: str, seed: int) -> Dataset:
    def uid(level: str) -> UID:
        return generate_uid(entropy_srcs=["kneeoa-mm synthetic", str(seed), level, subject_id])

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid(f"instance {visit}")
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = uid(f"study {visit}")
    dataset.SeriesInstanceUID = uid(f"series {visit}")
    for empty in (
        "AccessionNumber", "Manufacturer", "PatientBirthDate", "PatientName", "PatientSex",
        "ReferringPhysicianName", "StudyDate", "StudyID", "StudyTime",
    ):  # fmt: skip
        setattr(dataset, empty, "")
    dataset.PatientID = subject_id
    dataset.ClinicalTrialSponsorName = "kneeoa-mm"
    dataset.ClinicalTrialProtocolID = "SYNTHETIC"
    dataset.ClinicalTrialSubjectID = subject_id
    dataset.ClinicalTrialTimePointID = visit
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.DerivationDescription = "Computed phantom, no patient"
    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.SeriesDescription = "Bilateral PA Fixed Flexion Knee"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.BodyPartExamined = "KNEE"
    dataset.ViewPosition = "PA"
    dataset.ImageLaterality = "B"
    dataset.PatientOrientation = ["L", "F"]
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS_STORED, BITS_STORED - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.WindowCenter, dataset.WindowWidth = 2**BITS_STORED // 2, 2**BITS_STORED
    return dataset
